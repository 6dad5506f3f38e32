"""The electrical truth behind a rack's terminals: laws of the network, what a read sees, what
standing levels do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rram_hil.array import Apply, Cells, Geometry, Scheme, Step
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.array.circuit import ENDLESS_A, Branches, Network, Source
from rram_hil.drivers.simulated.array.terminals import Drive, Terminal
from rram_hil.drivers.simulated.array.world import ArrayWorld
from rram_hil.simulation.chip import FAULT_LEAK_S, GATE_LEAK_S, Fault, SimulatedChip
from rram_hil.simulation.config import Simulation

READ_V = 0.25
OFF = Drive()


def volts(level: float, limit: float = 1e-2) -> Drive:
    return Drive("voltage", level, limit)


def amps(level: float, limit: float = 5.0) -> Drive:
    return Drive("current", level, limit)


def a_chip(geometry: Geometry, device: str = "paper", **simulation: object) -> SimulatedChip:
    chosen = Simulation.model_validate({"device": device, "converters": False} | simulation)
    return SimulatedChip(geometry, chosen, read_v=READ_V, chip_id="w1")


def formed(chip: SimulatedChip) -> SimulatedChip:
    """The chip with every responsive cell formed."""
    chip.execute(
        Apply(Cells.all(chip.geometry), (Step(4.0, 0.0, 3.0, width_s=1e-6, measure="no"),)), 1
    )
    assert chip.formed.any()
    return chip


class Bench:
    """A world with channels s.a, s.b, s.c on rows A, B, C, ground on G; lines on columns BL, then
    SL, then WL, from 1.
    """

    def __init__(self, chip: SimulatedChip) -> None:
        geometry = chip.geometry
        self.chip = chip
        is_1r = geometry.cell == "1R"
        along = "row" if is_1r else geometry.source_lines
        sources = {"row": geometry.rows, "column": geometry.columns, "common": 1}[along]
        last = geometry.columns + sources
        self.first_sl, self.first_wl = geometry.columns + 1, last + 1
        wiring = Wiring(
            channels={"s.a": "A", "s.b": "B", "s.c": "C"},
            ground="G",
            bl=f"1-{geometry.columns}",
            sl=f"{self.first_sl}-{last}",
            wl="" if is_1r else f"{self.first_wl}-{last + geometry.rows}",
        )
        self.world = ArrayWorld(chip, wiring)
        self.channels: dict[str, Terminal] = self.world.terminals("s")

    def close(self, **rows: Iterable[int]) -> None:
        """Close these columns on each row and nothing else."""
        self.world.fabric.set_closed(
            frozenset((row, column) for row, columns in rows.items() for column in columns)
        )

    def drive(self, **drives: Drive) -> None:
        for channel, drive in drives.items():
            self.channels[channel].drive(drive)

    def wait(self, seconds: float = 1e-3) -> None:
        self.world.clock.advance(seconds)

    def read(self, channel: str) -> float:
        return self.channels[channel].sense().amps


# The network

NETS = 6
levels = st.floats(-4, 4).map(lambda v: round(v, 3))
limits = st.sampled_from([1e-9, 1e-6, 1e-5, 1e-4, 1e-2, 1.0])
conductances = st.sampled_from([0.0, 1e-9, 1e-6, 2e-5, 1e-4, 1e-2])
nets = st.integers(0, NETS - 1)


@st.composite
def sources(draw: st.DrawFn) -> Source:
    if draw(st.booleans()):
        limit = draw(limits)
        return Source(draw(nets), draw(levels), -limit, limit)
    level = draw(limits) * draw(st.sampled_from([-1, 1]))
    return Source(
        draw(nets),
        float(np.copysign(draw(st.floats(0.1, 4)), level)),
        min(level, 0.0),
        max(level, 0.0),
    )


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@given(
    cells=st.lists(st.tuples(nets, nets, nets, conductances), max_size=20),
    driving=st.lists(sources(), max_size=5),
    ground=nets,
    gated=st.booleans(),
)
def test_kirchhoff_holds_at_every_net_and_no_source_leaves_its_limits(
    cells: list[tuple[int, int, int, float]], driving: list[Source], ground: int, gated: bool
) -> None:
    cells = [c for c in cells if c[0] != c[1]]
    table = np.array([c[:3] for c in cells], dtype=np.int64).reshape(-1, 3)
    g = np.array([c[3] for c in cells])
    # Word lines are nets of their own, as in an array with ideal gates: each stands where it is
    # driven.
    gates = [Source(NETS + k, k - 1.0, -1e-2, 1e-2) for k in range(NETS)]
    branches = Branches(table[:, 0], table[:, 1], table[:, 2] + NETS, gated)
    leak = np.full(2 * NETS, 1e-15)
    every = [*driving, *gates, Source(ground, 0.0, -ENDLESS_A, ENDLESS_A)]
    found = Network(leak, branches, every).solve(g)
    assume(found.is_exact)  # rare: several sources on one net, at odds with each other
    v = found.volts
    current = branches.currents(g, v)
    fed = np.bincount([s.net for s in every], found.amps, 2 * NETS)
    taken = (
        leak * v
        + np.bincount(table[:, 0], current, 2 * NETS)
        - np.bincount(table[:, 1], current, 2 * NETS)
    )
    most_a = max(s.high_a - s.low_a for s in every if s.high_a < ENDLESS_A)
    flow = np.bincount(table[:, 0], np.abs(current), 2 * NETS) + np.bincount(
        table[:, 1], np.abs(current), 2 * NETS
    )
    assert np.all(np.abs(fed - taken) <= 1e-8 * (flow + np.abs(fed)) + 1e-15 * most_a + 3e-13)
    for source, amp in zip(every, found.amps, strict=True):
        slack = 1e-8 * abs(amp) + 1e-15 * most_a + 3e-13
        assert source.low_a - slack <= amp <= source.high_a + slack
        if source.low_a + slack < amp < source.high_a - slack:
            assert v[source.net] == pytest.approx(source.volts, abs=1e-9)
        elif source.high_a > source.low_a:
            # At a limit the net stands on the side to which the limit lets it go.
            if amp >= source.high_a - slack:
                assert v[source.net] <= source.volts + 1e-9
            if amp <= source.low_a + slack:
                assert v[source.net] >= source.volts - 1e-9


@settings(max_examples=60, deadline=None)
@given(
    joined=st.lists(st.tuples(st.sampled_from("ABCG"), st.integers(1, 12)), max_size=14),
    drives=st.tuples(
        *[
            st.one_of(st.just(OFF), st.builds(volts, levels, limits), st.builds(amps, limits))
            for _ in "abc"
        ]
    ),
    cell=st.sampled_from(["1T1R", "1R"]),
)
def test_terminals_never_exceed_their_limits_whatever_is_joined(
    joined: list[tuple[str, int]], drives: tuple[Drive, ...], cell: str
) -> None:
    bench = Bench(formed(a_chip(Geometry(1, 4, 4, cell, "row"))))  # type: ignore[arg-type]
    bench.world.fabric.set_closed(frozenset(joined))
    for channel, drive in zip("abc", drives, strict=True):
        bench.drive(**{channel: drive})
        bench.wait(1e-6)
        for name, now in zip("abc", drives[: "abc".index(channel) + 1], strict=False):
            seen = bench.channels[name].sense()
            limit_a = {"voltage": now.limit, "current": abs(now.level), "off": 0.0}[now.function]
            assert abs(seen.amps) <= limit_a * (1 + 1e-9) + 1e-15
            if bench.world.unsolved:
                continue
            if now.function == "voltage" and not seen.limited:
                assert seen.volts == pytest.approx(now.level, abs=1e-9)
            if now.function == "current" and not seen.limited:
                assert seen.amps == pytest.approx(now.level, rel=1e-9)
            if now.function == "voltage" and seen.limited:
                assert abs(seen.amps) == pytest.approx(now.limit, rel=1e-6)


def test_every_way_to_join_lines_has_an_exact_solution_but_for_gates_joined_with_others() -> None:
    rng = np.random.default_rng(7)
    chip = formed(a_chip(Geometry(1, 4, 4, "1T1R", "row")))
    solved = 0
    for _ in range(250):
        bench = Bench(chip)
        joined = [
            ("ABCG"[rng.integers(4)], int(rng.integers(1, 13))) for _ in range(rng.integers(15))
        ]
        gates = {row for row, column in joined if column > 8}
        if any(row in gates and column <= 8 for row, column in joined):
            continue
        bench.world.fabric.set_closed(frozenset(joined))
        for channel in "abc":
            limit = 10.0 ** -rng.integers(2, 10)
            level = round(float(rng.uniform(-4, 4)), 2)
            bench.drive(**{channel: volts(level, limit) if rng.random() < 0.7 else amps(limit)})
            bench.channels[channel].sense()
        assert bench.world.unsolved == 0, joined
        solved += 1
    assert solved > 50


def test_a_source_at_its_current_limit_lets_its_volts_go() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1R"), read_noise=False)))
    g = float(bench.chip.conductance_s()[0, 0, 0])
    bench.close(A=[1], G=[bench.first_sl, bench.first_sl + 1])
    limit = 0.1 * g
    bench.drive(a=volts(0.2, limit))
    seen = bench.channels["a"].sense()
    total = float(bench.chip.conductance_s()[0, :, 0].sum())
    assert seen.limited
    assert seen.amps == pytest.approx(limit)
    assert seen.volts == pytest.approx(limit / total, rel=1e-6)


def test_a_current_source_into_an_open_line_stands_at_its_voltage_limit() -> None:
    bench = Bench(a_chip(Geometry(1, 2, 2)))
    bench.drive(a=amps(1e-6, 0.2))
    seen = bench.channels["a"].sense()
    assert (seen.volts, seen.limited) == (pytest.approx(0.2), True)
    assert abs(seen.amps) < 1e-12
    bench.drive(a=amps(-1e-6, 0.2))
    assert bench.channels["a"].sense().volts == pytest.approx(-0.2)


def test_a_current_source_measures_the_volts_across_a_cell() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1R"), read_noise=False)))
    bench.close(A=[1], G=[bench.first_sl, bench.first_sl + 1])
    bench.drive(a=amps(1e-6, 1.0))
    total = float(bench.chip.conductance_s()[0, :, 0].sum())
    seen = bench.channels["a"].sense()
    assert (seen.amps, seen.limited) == (pytest.approx(1e-6), False)
    assert seen.volts == pytest.approx(1e-6 / total, rel=1e-6)


def test_two_rows_joined_through_one_line_are_a_short_that_the_weaker_source_loses() -> None:
    bench = Bench(a_chip(Geometry(1, 2, 2)))
    bench.drive(a=volts(1.0, 1e-3), b=volts(0.2, 1e-2))
    assert bench.world.shorts == 0
    bench.close(A=[1], B=[1])
    strong, weak = bench.channels["b"].sense(), bench.channels["a"].sense()
    assert (weak.volts, weak.amps, weak.limited) == (pytest.approx(0.2), pytest.approx(1e-3), True)
    assert (strong.volts, strong.amps, strong.limited) == (
        pytest.approx(0.2),
        pytest.approx(-1e-3),
        False,
    )
    assert bench.world.shorts == 1
    bench.close(A=[1, 2], B=[1])
    assert bench.world.shorts == 1, "the same short is counted once"
    bench.close(A=[1, 2], B=[1, 2])
    assert bench.world.shorts == 2


def test_a_driven_row_on_ground_is_at_its_limit() -> None:
    bench = Bench(a_chip(Geometry(1, 2, 2)))
    bench.close(A=[1], G=[1])
    bench.drive(a=volts(1.0, 1e-3))
    seen = bench.channels["a"].sense()
    assert (seen.volts, seen.amps, seen.limited) == (0.0, pytest.approx(1e-3), True)


# Reads


@settings(max_examples=25, deadline=None)
@given(
    row=st.integers(0, 3),
    column=st.integers(0, 4),
    read_v=st.sampled_from([0.05, 0.1, 0.2, -0.2]),
    wl_v=st.sampled_from([0.9, 1.1, 3.0]),
    source_lines=st.sampled_from(["row", "column", "common"]),
    line_ohm=st.sampled_from([0.0, 2.0]),
    unselected=st.sampled_from(["grounded", "floating"]),
)
def test_a_1t1r_read_is_what_the_chip_itself_reads(
    row: int,
    column: int,
    read_v: float,
    wl_v: float,
    source_lines: str,
    line_ohm: float,
    unselected: str,
) -> None:
    geometry = Geometry(1, 4, 5, "1T1R", source_lines)  # type: ignore[arg-type]
    cells = Cells.of([(0, row, column)])
    alone = formed(a_chip(geometry, line_ohm=line_ohm))
    expected = alone.execute(
        Apply(cells, (Step(read_v, 0.0, wl_v, width_s=1e-6, measure="current"),)), 2
    )
    bench = Bench(formed(a_chip(geometry, line_ohm=line_ohm)))
    source = {"row": row, "column": column, "common": 0}[source_lines]
    lines = {bench.first_sl + source}
    if unselected == "grounded":
        lines |= set(range(1, bench.first_wl + 4)) - {1 + column, bench.first_wl + row}
    bench.close(A=[1 + column], B=[bench.first_wl + row], G=lines)
    bench.drive(b=volts(wl_v), a=volts(read_v))
    bench.wait(1e-4)
    assert bench.read("a") == pytest.approx(float(expected.current_a[0, 0]), rel=1e-9, abs=1e-14)
    assert not (bench.chip.pulses - alone.pulses).any()


def test_without_noise_a_relaxing_chip_reads_its_own_conductance() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 3, 3, "1T1R", "common"), "hfo2", read_noise=False)))
    for seconds in (1e-3, 1.0, 1e5):
        bench.close(A=[2], B=[bench.first_wl + 1], G=[bench.first_sl])
        bench.drive(b=volts(3.0), a=volts(0.2))
        bench.wait(seconds)
        assert bench.read("a") / 0.2 == pytest.approx(
            float(bench.chip.conductance_s()[0, 1, 1]), rel=1e-6
        )


def test_a_reading_is_one_event_for_all_terminals_that_look_at_one_time() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1R"))))
    bench.close(A=[1], B=[bench.first_sl])
    bench.drive(a=volts(0.2), b=volts(0.0))
    bench.wait()
    first = bench.read("a")
    assert bench.read("a") == first, "no time has passed"
    assert bench.read("b") == pytest.approx(-first, rel=1e-9)
    bench.wait()
    assert bench.read("a") != first, "a later reading has noise of its own"


def test_a_gate_leaks_as_the_chip_says() -> None:
    bench = Bench(a_chip(Geometry(1, 2, 2)))
    bench.chip.inject(Fault.GATE_LEAK, Cells.of([(0, 1, 0)]))
    bench.close(B=[bench.first_wl], C=[bench.first_wl + 1])
    bench.drive(b=volts(3.0), c=volts(3.0))
    assert bench.read("b") == pytest.approx(3.0 * GATE_LEAK_S, rel=2e-3)
    assert bench.read("c") == pytest.approx(3.0 * (GATE_LEAK_S + FAULT_LEAK_S), rel=2e-3)


def test_a_terminal_that_is_off_carries_nothing_and_tells_its_rows_potential() -> None:
    bench = Bench(a_chip(Geometry(1, 2, 2)))
    bench.close(A=[1], B=[1])
    bench.drive(a=volts(0.1))
    seen = bench.channels["b"].sense()
    assert (seen.volts, seen.amps, seen.limited) == (pytest.approx(0.1), 0.0, False)


def _direct(g: NDArray[np.float64], fixed: dict[int, float]) -> NDArray[np.float64]:
    """Potentials of a crossbar's lines (rows, then columns) with some of them held: the textbook
    nodal solution.
    """
    rows, columns = g.shape
    n = rows + columns
    matrix = np.zeros((n, n))
    matrix[:rows, rows:] = -g
    matrix[rows:, :rows] = -g.T
    matrix[np.arange(n), np.arange(n)] = -matrix.sum(axis=1)
    held = sorted(fixed)
    free = [k for k in range(n) if k not in fixed]
    v = np.zeros(n)
    v[held] = [fixed[k] for k in held]
    v[free] = np.linalg.solve(matrix[np.ix_(free, free)], -matrix[np.ix_(free, held)] @ v[held])
    return v


@settings(max_examples=25, deadline=None)
@given(
    row=st.integers(0, 5), column=st.integers(0, 4), seed=st.integers(0, 50), held=st.integers(0, 3)
)
def test_sneak_paths_of_a_floating_1r_array_are_those_of_the_nodal_solution(
    row: int, column: int, seed: int, held: int
) -> None:
    bench = Bench(formed(a_chip(Geometry(1, 6, 5, "1R"), seed=seed, read_noise=False)))
    third = [k for k in range(6) if k != row][:held]
    bench.close(A=[1 + column], G=[bench.first_sl + row], B=[bench.first_sl + k for k in third])
    bench.drive(a=volts(0.2), b=volts(0.07))
    g = bench.chip.conductance_s()[0]
    v = _direct(g, {6 + column: 0.2, row: 0.0} | dict.fromkeys(third, 0.07))
    assert bench.read("a") == pytest.approx(float((g[:, column] * (0.2 - v[:6])).sum()), rel=1e-6)
    into_third = sum(float((g[k] * (v[k] - v[6:])).sum()) for k in third)
    assert bench.read("b") == pytest.approx(into_third, rel=1e-6, abs=1e-15)


# Standing levels


@settings(max_examples=30, deadline=None)
@given(
    bl_v=st.sampled_from([0.0, 1.5, 2.0, 3.6]),
    sl_v=st.sampled_from([0.0, 1.2, 1.6]),
    wl_v=st.sampled_from([2.4, 2.6, 3.4]),
    width_s=st.sampled_from([1e-7, 1e-6, 1e-4, 1e-2]),
    limit_a=st.sampled_from([None, 2e-5, 1e-4]),
    is_formed=st.booleans(),
    cell=st.sampled_from(["1T1R", "1R"]),
    line_ohm=st.sampled_from([0.0, 20.0]),
)
def test_levels_that_stand_for_a_time_are_the_chips_pulse_of_that_width(
    bl_v: float,
    sl_v: float,
    wl_v: float,
    width_s: float,
    limit_a: float | None,
    is_formed: bool,
    cell: str,
    line_ohm: float,
) -> None:
    # A single cell for the crossbar: what floats in a larger one takes part.
    geometry = Geometry(1, 2, 3, "1T1R", "row") if cell == "1T1R" else Geometry(1, 1, 1, "1R")
    place = geometry.columns - 1
    make = formed if is_formed else (lambda chip: chip)
    alone, bench = (
        make(a_chip(geometry, line_ohm=line_ohm)),
        Bench(make(a_chip(geometry, line_ohm=line_ohm))),
    )
    if (
        limit_a is not None
        and abs(bl_v - sl_v) * float(alone.conductance_s()[0, 0, place]) > limit_a
    ):
        # A source at its limit from the start gives less than its level; the chip's own pulse
        # does not.
        limit_a = None
    step = Step(bl_v, sl_v, wl_v, width_s=width_s, measure="no")
    alone.execute(Apply(Cells.of([(0, 0, place)]), (step,), compliance_a=limit_a), 9)
    bench.close(A=[1 + place], B=[bench.first_sl], C=[] if cell == "1R" else [bench.first_wl])
    bench.drive(c=volts(wl_v), a=volts(bl_v, limit_a or 1e-2), b=volts(sl_v))
    bench.wait(width_s)
    bench.drive(a=volts(0.0), b=volts(0.0), c=volts(0.0))
    assert np.array_equal(bench.chip.pulses, alone.pulses)
    assert np.array_equal(bench.chip.formed, alone.formed)
    assert bench.chip.conductance_s() == pytest.approx(alone.conductance_s(), rel=1e-6)


@pytest.mark.parametrize(
    ("cell", "scheme", "bl_v", "sl_v"),
    [
        ("1R", Scheme.HALF, 1.0, -1.0),
        ("1R", Scheme.HALF, -0.8, 0.8),
        ("1R", Scheme.GROUNDED, 1.6, 0.0),
        ("1R", Scheme.GROUNDED, 0.0, 1.4),
        ("1T1R", Scheme.GROUNDED, 0.0, 1.4),
        ("1T1R", Scheme.GROUNDED, 2.0, 0.0),
    ],
)
def test_cells_beside_the_selected_one_end_as_on_the_chip_alone(
    cell: str, scheme: Scheme, bl_v: float, sl_v: float
) -> None:
    geometry = Geometry(1, 3, 4, cell, "row")  # type: ignore[arg-type]
    row, column, wl_v, width_s = 1, 2, 2.6, 1e-6
    alone, bench = formed(a_chip(geometry)), Bench(formed(a_chip(geometry)))
    alone.execute(
        Apply(Cells.of([(0, row, column)]), (Step(bl_v, sl_v, wl_v, width_s),), scheme), 2
    )
    bit, source = 1 + column, bench.first_sl + row
    gates = range(bench.first_wl, bench.first_wl + geometry.rows) if cell == "1T1R" else range(0)
    word = {bench.first_wl + row} if cell == "1T1R" else set()
    others = {*range(1, bench.first_wl), *gates} - {bit, source} - word
    bench.close(A=[bit], B=[source], C=word, G=others)
    bench.drive(c=volts(wl_v), a=volts(bl_v), b=volts(sl_v))
    bench.wait(width_s)
    bench.drive(a=volts(0.0), b=volts(0.0), c=volts(0.0))
    assert bench.chip.conductance_s() == pytest.approx(alone.conductance_s(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(looks=st.lists(st.floats(1e-8, 1e-5), max_size=6), wl_v=st.sampled_from([2.2, 2.8]))
def test_a_segment_is_one_pulse_whatever_is_sensed_during_it(
    looks: list[float], wl_v: float
) -> None:
    total = 1e-4
    benches = [Bench(formed(a_chip(Geometry(1, 2, 2, "1T1R", "common")))) for _ in range(2)]
    for bench, pauses in zip(benches, ([], looks), strict=True):
        bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
        bench.drive(b=volts(wl_v), a=volts(2.0))
        began = bench.chip.now_s
        for pause in pauses:
            bench.wait(pause)
            bench.channels["a"].sense()
            bench.channels["b"].sense()
        bench.wait(began + total - bench.chip.now_s)
        bench.drive(a=volts(0.0))
    plain, looked = benches
    assert int(plain.chip.pulses[0, 0, 0]) == 2, "one to form, one now"
    assert np.array_equal(plain.chip.pulses, looked.chip.pulses)
    assert looked.chip.conductance_s() == pytest.approx(plain.chip.conductance_s(), rel=1e-6)


def test_the_same_drive_again_is_no_change_and_a_new_one_is_a_new_pulse() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1T1R", "common"))))
    bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
    bench.drive(b=volts(2.2), a=volts(1.0))
    before = bench.chip.pulses
    for _ in range(3):
        bench.drive(a=volts(1.0))
        bench.wait(1e-6)
    assert int((bench.chip.pulses - before).sum()) == 1
    bench.drive(a=volts(1.1))
    assert int((bench.chip.pulses - before).sum()) == 1, "no time has passed yet"
    bench.wait(1e-6)
    assert int((bench.chip.pulses - before).sum()) == 2


def test_reads_at_the_limit_are_no_pulses() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1R"))))
    before = bench.chip.pulses
    bench.close(A=[1], G=[bench.first_sl])
    bench.drive(a=volts(READ_V * 1.0005 + 0.5e-3))
    bench.wait(1.0)
    assert np.array_equal(bench.chip.pulses, before)


def test_v_half_stresses_the_half_selected_cells_of_a_crossbar_and_counts_them() -> None:
    bench = Bench(a_chip(Geometry(1, 3, 4, "1R")))
    bench.close(A=[1], B=[2, 3, 4, bench.first_sl + 1, bench.first_sl + 2], G=[bench.first_sl])
    bench.drive(b=volts(0.6), a=volts(1.2))
    bench.wait(1e-6)
    bench.drive(a=volts(0.0), b=volts(0.0))
    expected = np.zeros((3, 4), dtype=np.int64)
    expected[0, :] = 1
    expected[:, 0] = 1
    assert np.array_equal(bench.chip.pulses[0], expected), (
        "row and column of the selected cell; 0 V across the others"
    )


def test_a_closed_gate_keeps_the_cells_of_the_column_from_a_pulse() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 3, 3, "1T1R", "common"))))
    before = bench.chip.pulses
    bench.close(A=[1], B=[bench.first_wl + 1], G=[bench.first_sl, bench.first_wl])
    bench.drive(b=volts(2.5), a=volts(2.0))
    bench.wait(1e-6)
    assert np.argwhere(bench.chip.pulses - before).tolist() == [[0, 1, 0]]


def test_an_inhibited_neighbour_in_an_open_row_sees_nothing_and_a_grounded_one_its_volts() -> None:
    for inhibited in (True, False):
        bench = Bench(formed(a_chip(Geometry(1, 2, 3, "1T1R", "row"))))
        before = bench.chip.pulses
        others = [2, 3]
        bench.close(
            A=[1],
            B=[bench.first_wl],
            C=[bench.first_sl, *(others if inhibited else ())],
            G=() if inhibited else others,
        )
        bench.drive(b=volts(4.0), c=volts(1.5), a=volts(0.0))
        bench.wait(1e-6)
        bench.drive(c=volts(0.0))
        assert int((bench.chip.pulses - before).sum()) == (1 if inhibited else 3)


def test_compliance_caps_a_set_at_the_limit_of_the_channel_that_drives() -> None:
    reached = {}
    for limit in (1e-2, 2e-5):
        bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1T1R", "common"))))
        bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl], C=())
        # RESET first: the cell must be below what the limit allows.
        bench.close(A=[bench.first_sl], B=[bench.first_wl], G=[1])
        bench.drive(b=volts(4.0), a=volts(1.8))
        bench.wait(1e-6)
        bench.drive(a=volts(0.0))
        bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
        bench.drive(b=volts(3.0), a=volts(2.0, limit))
        bench.wait(1e-6)
        bench.drive(a=volts(0.0))
        reached[limit] = float(bench.chip.conductance_s()[0, 0, 0])
    assert reached[2e-5] == pytest.approx(2e-5 / bench.chip.model.compliance_v, rel=1e-6)
    assert reached[1e-2] > 2 * reached[2e-5]


# Relays


def test_dry_switching_is_not_hot_and_switching_under_volts_is() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1T1R", "common"))))
    world = bench.world
    bench.drive(a=volts(0.0), b=volts(0.0))
    bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
    bench.drive(b=volts(3.0), a=volts(0.2))
    bench.wait()
    bench.drive(a=volts(0.0), b=volts(0.0))
    bench.close(A=[2], B=[bench.first_wl], G=[bench.first_sl])
    assert world.hot_switches == 0
    bench.drive(b=volts(3.0))
    bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
    assert world.hot_switches == 0, "only relays that move count, and these stand at 0 V"
    bench.drive(a=volts(0.2))
    bench.close(B=[bench.first_wl], G=[bench.first_sl])
    assert world.hot_switches == 1, "it carried current"
    bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
    assert world.hot_switches == 2, "0.2 V stood across it before it closed"
    bench.close(A=[1], G=[bench.first_sl])
    assert world.hot_switches == 3, "the gate's line loses its 3 V"
    assert world.closures[("A", 1)] == 3
    assert sum(world.closures.values()) == 6


def test_opening_a_relay_under_current_alone_is_hot() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1T1R", "common"))))
    bench.close(A=[1], B=[bench.first_wl], G=[bench.first_sl])
    bench.drive(b=volts(3.0), a=volts(0.009, 1e-2))
    carried = bench.read("a")
    assert abs(carried) > 1e-7
    assert bench.world.hot_switches == 0
    bench.chip.inject(Fault.SHORT, Cells.of([(0, 0, 0)]))
    bench.close(B=[bench.first_wl], G=[bench.first_sl])
    assert bench.world.hot_switches == 1


def test_damage_shows_at_once() -> None:
    bench = Bench(formed(a_chip(Geometry(1, 2, 2, "1R"), read_noise=False)))
    bench.close(A=[1], G=[bench.first_sl])
    bench.drive(a=volts(0.1))
    bench.world.damage(Fault.SHORT, Cells.of([(0, 0, 0)]))
    assert bench.read("a") > 1e-3
    bench.world.damage(Fault.OPEN, Cells.all(bench.chip.geometry))
    assert abs(bench.read("a")) < 1e-12
