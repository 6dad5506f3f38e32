"""The look's own logic, on invented readings: what no simulated fault shows, and what it must never
do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Apply, ApplyResult, Cells, Geometry, Limits, Status, check, read_step
from rram_hil.array.defects import LookSummary
from rram_hil.engine.protocol import Save, Setting
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.protocols.look import Look
from rram_hil.terminal.console import outcome_text

GEOMETRY = Geometry(2, 10, 12)
LIMITS = Limits(
    bl_v=4.0,
    sl_v=3.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.0,
    half_select_v=0.3,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1e-8,
    width_s=1e-5,
    pulses_per_cell=10,
)
CAN = Capabilities(Span(-5, 5), Span(-5, 5), Span(-5, 5), Span(1e-8, 1), gate_current=True)
SETTING = Setting(GEOMETRY, LIMITS, read_step(), CAN)


def look(
    opened: Any,
    closed: Any = 0.0,
    gates: Any = 1e-12,
    setting: Setting = SETTING,
    status: Any = Status.OK,
) -> tuple[LookSummary, list[Apply], list[Save]]:
    """Run the protocol on invented maps; its summary, operations and saves."""
    shape = setting.geometry.shape
    asked: list[Apply] = []
    saved: list[Save] = []
    plan = Look().run(setting)
    answer: Any = None
    try:
        while True:
            message = plan.send(answer)
            answer = None
            if isinstance(message, Save):
                saved.append(message)
            if isinstance(message, Apply):
                asked.append(message)
                index = message.cells.index(setting.geometry)
                gate = message.steps[0].measure == "gate"
                values = opened if len(asked) == 1 else closed
                seen = np.broadcast_to(values, shape).reshape(-1)[index]
                current = (
                    np.full(len(index), gates) if np.ndim(gates) == 0 else np.asarray(gates).ravel()
                )
                m = message.measurements
                conductance = np.repeat(np.full(len(index), np.nan) if gate else seen, m).reshape(
                    -1, m
                )
                state = np.broadcast_to(status if len(asked) == 1 else Status.OK, shape).reshape(
                    -1
                )[index]
                answer = ApplyResult(
                    np.repeat(current, m).reshape(-1, m),
                    conductance,
                    np.repeat(state, m).reshape(-1, m).astype(np.uint8),
                    np.zeros((len(index), m)),
                    np.zeros(len(index), dtype=np.int64),
                    np.full(len(index), m),
                )
    except StopIteration as stop:
        return stop.value, asked, saved


def told(summary: LookSummary) -> list[tuple[str, int, str, list[Any]]]:
    return [(f.kind, f.tile, f.place, f.index.tolist()) for f in summary.findings]


def test_no_operation_of_a_look_is_charged_a_pulse() -> None:
    _, asked, _ = look(1e-4)
    assert len(asked) == 3
    for operation in asked:
        assert not check(operation, GEOMETRY, LIMITS).pulses.any()
        assert all(np.all(np.abs(s.cell_v(1)) <= LIMITS.read_v) for s in operation.steps)
    assert np.all(asked[1].steps[0].levels("wl", 1) == 0)


def test_a_read_condition_above_the_read_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0.3 V is above limits.read_v of 0.25 V"):
        look(1e-4, setting=replace(SETTING, read=read_step(0.3)))


def test_a_sound_chip_has_no_findings() -> None:
    summary, _, saved = look(1e-4)
    assert summary.findings == ()
    assert summary.pristine_tiles == ()
    assert summary.median_s == pytest.approx(1e-4)
    assert {s.name for s in saved} == {"conductance", "gate_closed", "gate_current"}


def test_what_conducts_with_its_gate_closed_is_no_plain_short() -> None:
    opened, closed = np.full(GEOMETRY.shape, 1e-4), np.zeros(GEOMETRY.shape)
    opened[1, :, 4] = 5e-3
    closed[1, :, 4] = 4e-3
    opened[0, 2, 3] = np.inf
    summary, _, _ = look(
        opened, closed, status=np.where(np.isinf(opened), Status.OVER_RANGE, Status.OK)
    )
    assert told(summary) == [
        ("conducts with the gate closed", 1, "column", [4]),
        ("short", 0, "cell", [[2, 3]]),
    ]
    assert (summary.conducting_gate_closed, summary.shorted) == (10, 1)


def test_opens_are_told_only_where_the_tile_conducts() -> None:
    opened = np.full(GEOMETRY.shape, 1e-4)
    opened[0, 3, :] = 1e-9
    opened[0, 6, 2] = 1e-9
    opened[1] = 1e-8
    summary, _, _ = look(opened)
    assert told(summary) == [("open", 0, "row", [3]), ("open", 0, "cell", [[6, 2]])]
    assert summary.pristine_tiles == (1,)
    assert "pristine or all open: tile 1, median" in outcome_text(summary)


def test_crossing_lines_are_both_named() -> None:
    opened = np.full(GEOMETRY.shape, 1e-4)
    opened[0, 3, :] = 2e-3
    opened[0, :, [5, 6, 7]] = 1e-9
    summary, _, _ = look(opened)
    assert told(summary) == [("short", 0, "row", [3]), ("open", 0, "column", [5, 6, 7])]


def test_a_whole_tile_is_named_once() -> None:
    opened = np.full(GEOMETRY.shape, 1e-4)
    opened[1] = 2e-3
    assert told(look(opened)[0]) == [("short", 1, "tile", [])]


def test_leaky_gates_and_unreadable_cells() -> None:
    gates = np.full((2, 10), 1e-12)
    gates[1, [2, 3]] = 2e-6
    status = np.full(GEOMETRY.shape, Status.OK)
    status[0, 0, 0] = Status.UNKNOWN
    opened = np.where(status == Status.UNKNOWN, np.nan, 1e-4)
    summary, _, _ = look(opened, gates=gates, status=status)
    assert told(summary) == [
        ("no usable reading", 0, "cell", [[0, 0]]),
        ("gate leak", 1, "row", [2, 3]),
    ]
    assert summary.findings[1].value == pytest.approx(2e-6)
    assert summary.leaky_gates == 2


def test_a_bench_that_cannot_measure_gates_says_so() -> None:
    summary, asked, _ = look(
        1e-4, setting=replace(SETTING, capabilities=replace(CAN, gate_current=False))
    )
    assert summary.leaky_gates is None
    assert len(asked) == 2


def test_an_array_without_gates_is_read_once() -> None:
    bare = Geometry(1, 4, 5, "1R")
    summary, asked, _ = look(1e-4, setting=replace(SETTING, geometry=bare))
    assert len(asked) == 1
    assert asked[0].cells == Cells.all(bare)
    assert summary.conducting_gate_closed == 0
