"""A map of targets whose cells bring their own windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rram_hil.bench.bench import Bench
from rram_hil.errors import DataError
from rram_hil.protocols.ispp import Ispp, SteppedPulse
from rram_hil.protocols.parts.pulses import Pulses, RampChoice
from rram_hil.protocols.parts.targets import TargetChoice
from rram_hil.protocols.write_verify import WriteVerify

SET = {"amplitude_v": 2.0, "gate_v": 1.8, "width_s": 1e-7, "step_v": 0.02, "stop_v": 3.0}
RESET = {"amplitude_v": 2.8, "gate_v": 3.5, "width_s": 2e-7}


def write_verify(targets: TargetChoice) -> WriteVerify:
    set_ = Pulses(
        amplitude_v=RampChoice(start_v=2.0, stop_v=2.0),
        gate_v=RampChoice(start_v=1.9, stop_v=2.8, step_v=0.02),
        width_s=1e-7,
    )
    reset = Pulses(
        amplitude_v=RampChoice(start_v=1.5, stop_v=2.8, step_v=0.05),
        gate_v=RampChoice(start_v=3.5, stop_v=3.5),
        width_s=2e-7,
    )
    return WriteVerify(targets=targets, set=set_, reset=reset, max_pulses=200, max_reversals=50)


def ispp(targets: TargetChoice) -> Ispp:
    pulses = {"set": SteppedPulse(**SET), "reset": SteppedPulse(**RESET)}
    return Ispp(targets=targets, **pulses, max_pulses=200)


@pytest.mark.parametrize("method", [write_verify, ispp])
def test_cells_end_in_the_windows_that_their_targets_came_with(
    method: Callable[[TargetChoice], WriteVerify | Ispp],
    open_array: Callable[..., Bench],
    known_model: Callable[..., Path],
) -> None:
    bench = open_array(known_model(), size=4)
    target, low, high = (np.full(bench.geometry.shape, np.nan) for _ in range(3))
    # A narrow window, a wide one, one without an upper and one without a lower end.
    for row, window in enumerate([(38, 40, 42), (50, 60, 75), (60, 70, np.inf), (0, 5, 9)]):
        low[0, row], target[0, row], high[0, row] = (1e-6 * value for value in window)
    summary = bench.run(method(TargetChoice(map=target, low=low, high=high)))
    assert summary.cells == 16
    assert summary.inside >= 12
    found = bench.read_map()
    # What was accepted may read a little beyond, once more.
    slack = 2e-6
    assert ((found > low - slack) & (found < high + slack)).sum() >= summary.inside - 1


def test_a_window_that_does_not_hold_its_target_is_named(open_array: Callable[..., Bench]) -> None:
    bench = open_array("paper", size=4)
    target = np.full(bench.geometry.shape, 50e-6)
    low, high = target - 5e-6, target + 5e-6
    low[0, 2, 1] = 55e-6
    told = r"window of cell \(0, 2, 1\) is 55 uS to 55 uS, its target 50 uS; needed is 0 S <= low"
    with pytest.raises(DataError, match=told):
        bench.run(write_verify(TargetChoice(map=target, low=low, high=high)))
    with pytest.raises(DataError, match=r"high: the array must hold conductances of shape"):
        bench.run(write_verify(TargetChoice(map=target, low=low, high=high[0])))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"map": "t.npy", "low": "l.npy"}, "low and high belong together"),
        ({"network": "n.safetensors", "low": "l.npy", "high": "h.npy"}, "go with a map"),
    ],
)
def test_windows_that_cannot_be_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TargetChoice(**keys)


def test_windows_are_files_that_a_run_needs() -> None:
    choice = TargetChoice(map="t.npy", low="l.npy", high="h.npy")
    assert choice.files() == ("t.npy", "l.npy", "h.npy")
