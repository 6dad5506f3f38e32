"""Targets given in Python as the array itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rram_hil.bench.bench import Bench
from rram_hil.errors import DataError, LimitError
from rram_hil.protocols.parts.pulses import Pulses, RampChoice
from rram_hil.protocols.parts.targets import TargetChoice, Targets
from rram_hil.protocols.write_verify import WriteVerify


def verify(targets: Targets) -> WriteVerify:
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
    return WriteVerify(targets=targets, set=set_, reset=reset, tolerance=0.2, max_pulses=100)


def test_write_verify_takes_an_array_of_targets(
    open_array: Callable[..., Bench], known_model: Callable[..., Path]
) -> None:
    bench = open_array(known_model(), size=4)
    target = np.full(bench.geometry.shape, np.nan)
    target[0, 1:3, :] = 40e-6
    summary = bench.run(verify(target))
    assert summary.cells == 8
    assert summary.inside > 4
    reached = bench.read_map()[0, 1:3].ravel()
    assert np.median(np.abs(reached - 40e-6)) < 10e-6
    assert bench.run(verify(TargetChoice(map=target))).cells == 8


def test_an_array_of_another_shape_is_refused(open_array: Callable[..., Bench]) -> None:
    bench = open_array("paper", size=4)
    with pytest.raises(DataError, match=r"map: the array must hold conductances of shape \(1, 4"):
        bench.run(verify(np.zeros((4, 4))))


def test_a_target_beyond_the_limits_is_named_as_the_map_has_it(
    open_array: Callable[..., Bench],
) -> None:
    bench = open_array("paper", size=4)
    target = np.full(bench.geometry.shape, 50e-6)
    target[0, 1, 2] = 1.5e-3
    told = r"map: the array: target 1.5 mS of cell \(0, 1, 2\) is beyond limits.conductance_s"
    with pytest.raises(LimitError, match=told + r" \(0 S to .*S\)$") as refused:
        bench.run(verify(target))
    assert refused.value.value == 1.5e-3
    # A map in microsiemens.
    with pytest.raises(LimitError, match=r"target 50 S of cell .*; targets are in siemens$"):
        bench.run(verify(np.full(bench.geometry.shape, 50.0)))
