"""What a bench calls a read: the chip does not know, `check` tries it, and above 0.5 V it needs a
reason.
"""

import numpy as np
import pytest

from rram_hil.array import Apply, Cells, Geometry, Multiply, Step
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.read_limit import try_read_limit
from rram_hil.errors import ConfigError
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation

LIMITS = {
    "bl_v": 5.0, "sl_v": 3.5, "wl_v": 5.0, "cell_v": 4.8, "gate_over_v": 5.0, "half_select_v": 0.5,
    "read_v": 0.25, "current_a": 1e-3, "energy_j": 1e-6, "width_s": 1e-3, "pulses_per_cell": 1000,
}  # fmt: skip
CHIP = {"id": "t", "tiles": 1, "rows": 8, "columns": 8, "cell": "1T1R"}


def a_file(chip: dict[str, object] | None = None, **limits: object) -> dict[str, object]:
    return {
        "chip": CHIP | (chip or {}),
        "driver": {"name": "simulated-array"},
        "simulation": {},
        "limits": LIMITS | limits,
    }


@pytest.mark.parametrize(
    ("chip", "limits"),
    [({}, {"read_v": 0.51}), ({}, {"read_v": 2.5}), ({"switch_v": 0.3}, {"read_v": 0.31})],
)
def test_a_high_read_limit_needs_a_reason(
    chip: dict[str, object], limits: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"read_v of .*read_v_reason") as refused:
        parse_bench_file(a_file(chip, **limits))
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="read_v_reason"):
        parse_bench_file(a_file(chip, **limits, read_v_reason="  "))
    parse_bench_file(a_file(chip, **limits, read_v_reason="plain resistors in the sockets"))


def test_usual_read_limits_need_none() -> None:
    for limit in (0.2, 0.25, 0.5):
        parse_bench_file(a_file(read_v=limit))
    parse_bench_file(a_file({"switch_v": 0.4}, read_v=0.4))


def formed(read_v: float) -> SimulatedChip:
    chip = SimulatedChip(Geometry(1, 8, 8), Simulation(), read_v=read_v, chip_id="c")
    chip.execute(Apply(Cells.all(chip.geometry), (Step(4.5, 0.0, 3.0, 1e-5),)), 1)
    return chip


def test_the_chip_does_not_know_what_the_bench_calls_a_read() -> None:
    """The same RESETs do the same to a chip whose bench says they are reads, and its own count of
    pulses tells them."""
    right, wrong = formed(0.25), formed(2.5)
    operation = Apply(Cells.all(right.geometry), (Step(0.0, 2.4, 4.5, 2e-7),))
    before = right.conductance_s()
    told = [chip.execute(operation, 2) for chip in (right, wrong)]
    np.testing.assert_array_equal(right.conductance_s(), wrong.conductance_s())
    assert np.mean(right.conductance_s() < 0.7 * before) > 0.8
    assert [int(t.pulses.sum()) for t in told] == [64, 0]  # type: ignore[union-attr]
    np.testing.assert_array_equal(right.pulses, wrong.pulses)


def test_input_vectors_above_what_switches_change_the_cells_they_cross() -> None:
    strong, weak = formed(2.5), formed(2.5)
    inputs = np.zeros((3, 4), dtype=np.int16)
    inputs[1, 2] = 127
    before = strong.pulses
    for chip, read_v in ((strong, 2.4), (weak, 0.2)):
        chip.execute(Multiply(0, 0, 0, 8, inputs, read_v=read_v, wl_v=4.5), 2)
    changed = np.argwhere(strong.conductance_s()[0] != weak.conductance_s()[0])
    assert set(changed[:, 0].tolist()) == {2}
    assert (strong.pulses - before)[0].sum(axis=1).tolist() == [0, 0, 8, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(weak.pulses, before)


@pytest.mark.parametrize(("read_v", "changes"), [(0.25, False), (2.4, True)])
def test_check_tries_the_read_limit(read_v: float, changes: bool) -> None:
    trial = try_read_limit(parse_bench_file(a_file(read_v=read_v, read_v_reason="trial")))
    assert (trial.changed > 80) == changes
    assert (trial.changed == 0) != changes
