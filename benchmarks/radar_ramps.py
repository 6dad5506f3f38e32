"""Which starts and steps of RADAR's fine ramps need the fewest pulses on a device model: the source
of its constants.

    python benchmarks/radar_ramps.py [MODEL]

The windows are the lower three of 2 bit/cell (the top one takes no ramp); only cells that end
inside count, and no choice may fail more than 2 % in the middle ones.
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np

from rram_hil.calibration.device_fit import write_verify_schemes as _write_verify
from rram_hil.simulation.model import DEFAULT_PRESET, DeviceModel

STEPS = (0.02, 0.06, 0.1, 0.14, 0.18, 0.22, 0.26, 0.30)
STARTS = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0)
EACH = 200


def main() -> None:
    """Print the constants in use and the best, each with its mean pulses."""
    model = DeviceModel.load(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PRESET)
    low, high = (
        np.repeat(np.array(v), EACH) for v in ((0.0, 5770.0, 8510.0), (5000.0, 6010.0, 9310.0))
    )

    def pulses(bl: tuple[float, float], sl: tuple[float, float]) -> float:
        limits = (_write_verify.FINE_BL_V[2], _write_verify.FINE_SL_V[2])
        found = _write_verify.radar(
            model, low, high, 5, fine_bl_v=(*bl, limits[0]), fine_sl_v=(*sl, limits[1])
        )
        good = found.success == 1
        return float(found.pulses[good].mean()) if good[EACH:].mean() >= 0.98 else float("inf")

    # The two ramps hardly depend on each other: first SL with the BL in use, then BL with the best
    # SL.
    bl, sl = _write_verify.FINE_BL_V[:2], _write_verify.FINE_SL_V[:2]
    print(
        f"in use: BL from {bl[0]} V by {bl[1]} V, SL from {sl[0]} V by {sl[1]} V:"
        f" {pulses(bl, sl):.2f} pulses"
    )
    for _ in range(2):
        sl = min(product(STARTS, STEPS), key=lambda one: pulses(bl, one))
        bl = min(product(STARTS, STEPS), key=lambda one: pulses(one, sl))
        print(
            f"best:   BL from {bl[0]} V by {bl[1]} V, SL from {sl[0]} V by {sl[1]} V:"
            f" {pulses(bl, sl):.2f} pulses"
        )


if __name__ == "__main__":
    main()
