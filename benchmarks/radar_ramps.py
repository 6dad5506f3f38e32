"""Which starts and steps of RADAR's fine ramps need the fewest pulses on a device model: the source
of its constants.

    python benchmarks/radar_ramps.py [MODEL]

The windows are the lower three of 2 bit/cell (the top one takes no ramp), the lowest by itself;
only cells that end inside count, and no choice may fail more than 2 % of the cells.
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np

from rram_hil.calibration.device_fit import write_verify_schemes as _write_verify
from rram_hil.simulation.model import DEFAULT_PRESET, DeviceModel

STEPS = (0.02, 0.06, 0.1, 0.14, 0.18, 0.22, 0.26, 0.30)
STARTS = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0)
LOWEST_OHM = ((0.0, 5000.0),)
MIDDLE_OHM = ((5770.0, 6010.0), (8510.0, 9310.0))
EACH = 200


def main() -> None:
    """Print the constants in use and the best, each with its mean pulses."""
    model = DeviceModel.load(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_PRESET)
    last_bl, last_sl = _write_verify.FINE_BL_V[2], _write_verify.FINE_SL_V[2]

    def pulses(bl: tuple[float, float], sl: tuple[float, float]) -> float:
        return _pulses(model, MIDDLE_OHM, fine_bl_v=(*bl, last_bl), fine_sl_v=(*sl, last_sl))

    def low_pulses(bl: tuple[float, float]) -> float:
        return _pulses(model, LOWEST_OHM, low_bl_v=(*bl, last_bl))

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
    for word, bl in (
        ("in use:", _write_verify.LOW_BL_V[:2]),
        ("best:  ", min(product(STARTS, STEPS), key=low_pulses)),
    ):
        print(f"{word} lowest window, BL from {bl[0]} V by {bl[1]} V: {low_pulses(bl):.2f} pulses")


def _pulses(
    model: DeviceModel,
    windows_ohm: tuple[tuple[float, float], ...],
    **ramps: tuple[float, float, float],
) -> float:
    """Pulses a cell that ends inside one of these windows; infinite where too many do not."""
    low, high = np.repeat(np.array(windows_ohm).T, EACH, axis=1)
    found = _write_verify.radar(model, low, high, 5, **ramps)
    good = found.success == 1
    return float(found.pulses[good].mean()) if good.mean() >= 0.98 else float("inf")


if __name__ == "__main__":
    main()
