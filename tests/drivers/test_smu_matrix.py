"""An array behind source-meters and a matrix: right values, dry relays, outputs off, few
transactions, honest refusals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import CHAINS, PULSED, write_bench
from chain_bounds import BAR, costs
from chains import program
from pydantic import ValidationError

from rram_hil import Bench, Wait, pulse, read, sweep
from rram_hil.array import Apply, Cells, Geometry, Limits, Scheme, Status, Step, Stop
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.drivers.matrix.routes import Router
from rram_hil.drivers.matrix.wiring import Wiring, columns_of
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.drivers.smu_matrix import SmuMatrix
from rram_hil.errors import BenchError, ConfigError
from rram_hil.protocols.forming import Forming
from rram_hil.pytest_plugin import LIMITS, GroundTruth
from rram_hil.validation import read_toml

TSP, TRIGGERED, PLAIN = CHAINS
SPGU, _ = PULSED
SIZE = 4
WIDTH_S = 2e-3
Opened = tuple[Bench, GroundTruth, BoardControl]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the simulated bench of a chain; at the end nothing may have been switched hot, no two
    channels joined.
    """
    opened: list[Opened] = []

    def make(chain: str, cell: str = "1T1R", size: int = SIZE, **options: Any) -> Opened:
        bench = Bench.open(write_bench(tmp_path, chain, cell, size, **options))
        assert bench.far_side is not None
        opened.append((bench, GroundTruth(bench), BoardControl(bench.far_side.control)))
        return opened[-1]

    yield make
    for bench, _, control in opened:
        if not bench.is_closed:
            told = control.status()
            assert (told["hot_switches"], told["shorts"]) == (0, 0)
            bench.driver.safe_off()
            assert not control.status()["outputs_on"]
            bench.close()
        control.close()


def _scheme(cell: str) -> Scheme:
    return Scheme.HALF if cell == "1R" else Scheme.INHIBIT


def _form(bench: Bench, cell: str) -> None:
    step, scheme = bench.file.read.step, _scheme(cell)
    levels = [2.4, 3.0, 3.6]
    stop = Stop(above_s=20e-6)
    bench.do(
        sweep(
            bench.cells(),
            "bl",
            levels,
            wl_v=2.0,
            width_s=WIDTH_S,
            read=step,
            stop=stop,
            unselected=scheme,
        )
    )


@pytest.mark.parametrize(
    ("chain", "cell"), [*((c, "1T1R") for c in CHAINS), (TSP, "1R"), (TRIGGERED, "1R")]
)
def test_pulses_and_reads_do_what_they_say(
    open_bench: Callable[..., Opened], chain: str, cell: str
) -> None:
    bench, truth, _ = open_bench(chain, cell)
    _form(bench, cell)
    moved = bench.cells(rows=(1, 2), columns=(0, 1))
    shot = pulse(
        moved,
        sl_v=np.array([0.8, 0.85, 0.9, 0.95]),
        wl_v=3.5,
        width_s=WIDTH_S,
        unselected=_scheme(cell),
    )
    before = truth.conductance_s()[0]
    bench.do(shot)
    result = bench.apply(read(bench.cells(), bench.file.read.step))
    g = truth.conductance_s()[0].ravel()
    can = bench.capabilities
    # Read noise of the device itself, at five sigma, beside what the chain states.
    allowed = can.read_fraction * g + can.read_floor_a / 0.2 + 5 * np.hypot(0.002 * g, 0.01e-6)
    assert np.all(result.status == Status.OK)
    assert np.all(np.abs(result.last_s - g) <= allowed)
    chosen = moved.index(bench.geometry)
    responsive = truth.named("stuck")[0].ravel()[chosen] == 0
    assert np.all(g[chosen][responsive] < before.ravel()[chosen][responsive])
    others = np.setdiff1d(np.arange(SIZE * SIZE), chosen)
    if cell == "1T1R":
        assert np.array_equal(g[others], before.ravel()[others])


@pytest.mark.parametrize("chain", CHAINS)
def test_the_bench_counts_the_pulses_that_the_cells_took(
    open_bench: Callable[..., Opened], chain: str
) -> None:
    bench, truth, _ = open_bench(chain)
    stop = Stop(above_s=20e-6)
    result = bench.apply(
        sweep(
            bench.cells(),
            "bl",
            [2.4, 3.0, 3.6],
            wl_v=2.0,
            width_s=WIDTH_S,
            read=bench.file.read.step,
            stop=stop,
        )
    )
    assert np.array_equal(result.pulses, truth.pulses().ravel())
    assert bench.ledger is not None
    assert np.array_equal(bench.ledger.counts.ravel(), truth.pulses().ravel())
    formed = result.last_s >= 20e-6
    assert np.all(result.reads[~formed] == 3)
    assert np.all(result.reads[formed] <= 3)
    assert np.any(result.reads < 3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("chain", "cell", "most"),
    [
        (TSP, "1T1R", 16),
        (TSP, "1R", 16),
        # Three a second, and what is set up and switched off.
        (TRIGGERED, "1T1R", 3 * 7 + 6),
        (TRIGGERED, "1R", 3 * 7 + 6),
        # Three a cell, two a row for the word line, and what is set up and switched off.
        (PLAIN, "1T1R", 3 * 256 + 2 * 16 + 10),
    ],
)
def test_a_map_costs_few_transactions_and_little_more_than_the_hardware_needs(
    chain: str, cell: str, most: int
) -> None:
    found = costs(chain, 16, cell)["map"]
    assert found.transactions <= most
    assert found.ratio <= BAR


@pytest.mark.long
@pytest.mark.parametrize(("chain", "most"), [(TSP, 16), (PLAIN, 3 * 256 + 2 * 16 + 10)])
def test_a_round_of_programming_costs_no_more_transactions_than_a_map(
    chain: str, most: int
) -> None:
    found = costs(chain)["round"]
    assert found.transactions <= most
    assert found.ratio <= BAR


@pytest.mark.long
@pytest.mark.parametrize(
    ("chain", "most"),
    [
        # Two lists of three each a second of readings: a pulse has not the range of a reading.
        (TRIGGERED, 6 * 7 + 6),
        # Relays, burst, its errors, relays, reading and gate; a row: the gate up, looked at, down.
        (SPGU, 5 * 256 + 8 * 16),
    ],
)
def test_a_round_of_programming_is_near_its_bound(chain: str, most: int) -> None:
    found = costs(chain)["round"]
    assert found.transactions <= most
    assert found.ratio <= BAR


@pytest.mark.long
@pytest.mark.parametrize(("chain", "cell"), [(TSP, "1T1R"), (TRIGGERED, "1R")])
def test_a_target_recipe_ends_inside_its_windows(chain: str, cell: str) -> None:
    found = program(chain, cell, 6)
    assert found.inside >= 0.99


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chain", [TSP, TRIGGERED])
@pytest.mark.parametrize("cell", ["1T1R", "1R"])
def test_a_target_recipe_on_a_whole_array_ends_inside_its_windows(chain: str, cell: str) -> None:
    assert program(chain, cell, 32).inside >= 0.99


@pytest.mark.long
@pytest.mark.parametrize("chain", [TSP, TRIGGERED])
@pytest.mark.parametrize(
    "kind", ["drop-reply", "half-reply", "garbage", "disconnect-reply", "stuck"]
)
def test_a_reading_that_fails_is_taken_again(
    open_bench: Callable[..., Opened], chain: str, kind: str
) -> None:
    bench, truth, control = open_bench(chain)
    cells = bench.cells(rows=(0, 1))
    control.inject(kind, instrument="smu")
    try:
        result = bench.apply(read(cells, bench.file.read.step))
    except BenchError:
        assert not control.status()["outputs_on"]
    else:
        assert np.all(result.status == Status.OK)
        assert np.allclose(
            result.last_s, truth.conductance_s()[0, :2].ravel(), rtol=0.02, atol=0.2e-6
        )
    assert truth.pulses().sum() == 0


@pytest.mark.long
@pytest.mark.parametrize("chain", [TSP, TRIGGERED])
@pytest.mark.parametrize("kind", ["drop-reply", "disconnect-reply", "line-overrun", "queue-full"])
def test_pulses_that_may_have_been_given_are_never_given_again(
    open_bench: Callable[..., Opened], chain: str, kind: str
) -> None:
    bench, truth, control = open_bench(chain)
    control.inject(kind, instrument="smu")
    shot = pulse(bench.cells(rows=(0, 0)), bl_v=3.0, wl_v=2.0, width_s=1e-3)
    try:
        result = bench.apply(shot)
    except BenchError:
        pass
    else:
        assert result.interrupted
        assert np.all(result.pulses >= truth.pulses()[0, 0])
    assert truth.pulses().max() <= 1
    assert not control.status()["outputs_on"]


def test_a_lost_reply_costs_no_cell_its_place_in_a_ramp(
    open_bench: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, truth, control = open_bench(TRIGGERED, "1T1R", 4)
    # Private: the moment between two pulses of a ramp shows nowhere else.
    chain = bench.driver._chain  # type: ignore[attr-defined]
    run, pulses = chain.run, []

    def lose_the_third(plan: Any, takes_s: float) -> Any:
        if np.max(np.abs(plan.routes[0].drop_v)) > 1.0:
            pulses.append(plan.at.size)
            if len(pulses) == 3:
                control.inject("drop-reply", instrument="matrix")
        return run(plan, takes_s)

    monkeypatch.setattr(chain, "run", lose_the_third)
    keys = {"bl_v": {"start_v": 2.2, "stop_v": 3.8, "step_v": 0.2}, "width_s": 1e-3}
    before = truth.pulses().copy()
    summary = bench.run(Forming.model_validate(keys).run(bench.setting))
    stuck = int((truth.named("stuck") != 0).sum())
    assert summary.formed == SIZE * SIZE - stuck
    assert np.isfinite(summary.median_v)
    # Two gates at most: nobody took a level twice.
    assert np.max(truth.pulses() - before) <= 2 * 9


def test_a_reading_between_two_pulses_that_fails_is_taken_again(
    open_bench: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, truth, control = open_bench(TRIGGERED, "1T1R", 4)
    chain = bench.driver._chain  # type: ignore[attr-defined]
    run, failed = chain.run, []

    def lose_a_reading(plan: Any, takes_s: float) -> Any:
        if np.max(np.abs(plan.routes[0].drop_v)) < 1.0 and not failed:
            failed.append(plan)
            control.inject("drop-reply", instrument="matrix")
        return run(plan, takes_s)

    monkeypatch.setattr(chain, "run", lose_a_reading)
    step, levels = bench.file.read.step, [2.0, 2.2]
    ramp = sweep(bench.cells(), "bl", levels, wl_v=2.0, width_s=1e-3, read=step)
    result = bench.apply(ramp)
    assert failed
    assert not result.interrupted
    assert np.all(result.pulses == 2)
    assert np.all(truth.pulses() == 2)


def test_an_abort_ends_after_the_row_and_keeps_what_was_done(
    open_bench: Callable[..., Opened],
) -> None:
    bench, _, _ = open_bench(TSP)
    driver = bench.driver
    asked = Apply(bench.cells(), (bench.file.read.step,))
    seen: list[int] = []
    # Private: the moment between two rows shows nowhere else.
    chain = driver._chain  # type: ignore[attr-defined]
    run = chain.run

    def then_cancel(plan: Any, takes_s: float) -> Any:
        found = run(plan, takes_s)
        seen.append(plan.at.size)
        driver.cancel.set()
        return found

    chain.run = then_cancel
    result = driver.execute(asked, 1)
    assert seen == [SIZE]
    assert isinstance(result.status, np.ndarray)  # type: ignore[union-attr]
    assert (result.status != Status.NOT_RUN).sum() == SIZE  # type: ignore[union-attr]
    driver.cancel.clear()


def test_two_threads_share_the_bench_row_by_row(open_bench: Callable[..., Opened]) -> None:
    bench, truth, _ = open_bench(TSP)
    g = truth.conductance_s()[0]
    wrong: list[float] = []

    def look(row: int) -> None:
        for number in range(4):
            cells = bench.cells(rows=(row, row))
            result: Any = bench.driver.execute(
                read(cells, bench.file.read.step), 10 * row + number + 1
            )
            wrong.extend(np.abs(result.last_s - g[row]) / np.maximum(g[row], 1e-8))

    threads = [threading.Thread(target=look, args=(row,)) for row in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Pristine cells of nanosiemens are near the floor of the reading.
    assert np.median(wrong) < 0.8


def test_a_wait_passes_on_the_bench_clock(open_bench: Callable[..., Opened]) -> None:
    bench, _, _ = open_bench(TSP)
    before = bench.driver.now_s()
    bench.do(Wait(1000.0))
    assert bench.driver.now_s() - before == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('wl = "1-4"', 'wl = "1-3"', "driver.wiring.wl: 3 matrix columns, 4 are needed"),
        ('bl = "5-8"', 'bl = "4-7"', "given to two lines"),
        ('ground = "C"', 'ground = "A"', "one matrix row"),
        ('{ "smu.a" = "A", "smu.b" = "B" }', '{ "smu.a" = "A" }', "at least two channels"),
        ('"smu.b" = "B"', '"b" = "B"', "no instrument 'b'; write INSTRUMENT.CHANNEL"),
        ('kind = "keithley-707b"', "", "driver.instruments.matrix.kind: missing"),
        ('"keithley-707b"', '"keithly-707b"', "instruments.matrix.kind: instrument kind 'keithly"),
        (
            'model = "2636B"',
            'model = "2636B"\nresource = "GPIB0::5::INSTR"\n[driver.instruments.other]\n'
            'kind = "keithley-2400"\nresource = "gpib0::5::INSTR"',
            "smu and other have the same resource 'gpib0::5::INSTR'",
        ),
        (
            'model = "2636B"',
            'model = "2636B"\n[driver.instruments.other]\nkind = "keithley-2400"',
            "other has no channel in wiring.channels, wiring.generators or wiring.probes",
        ),
        (
            'model = "2636B"',
            'model = "2636B"\n[driver.instruments.chuck]\nkind = "lakeshore-336"',
            "instruments.chuck: a thermostat stands in [thermostat]",
        ),
    ],
)
def test_wrong_wiring_is_refused_in_one_line_before_anything_is_started(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = write_bench(tmp_path, TSP, "1T1R", SIZE)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises((ConfigError, ValidationError)) as caught:
        _driver(path)
    assert said in str(caught.value)


def _driver(path: Path) -> SmuMatrix:
    tables, _ = read_toml(path)
    file = parse_bench_file(tables, path=path)
    return SmuMatrix(
        SmuMatrix.Config.model_validate(file.driver.settings), file.chip.geometry, file.limits
    )


def test_columns_are_named_by_ranges() -> None:
    assert columns_of("1-3, 7,9 - 8") == (1, 2, 3, 7, 9, 8)
    assert columns_of("") == ()


def _router(cell: str, channels: dict[str, str], source_lines: str = "common") -> Router:
    geometry = Geometry(1, 2, 3, cell, source_lines)  # type: ignore[arg-type]
    sl = "10-11" if cell == "1R" or source_lines == "row" else "10"
    wiring = Wiring(
        channels=channels, ground="G", bl="4-6", sl=sl, wl="" if cell == "1R" else "1-2"
    )
    wiring.check(geometry)
    return Router(wiring, geometry, Limits.model_validate(LIMITS))


TWO = {"s.a": "A", "s.b": "B"}
THREE = {"s.a": "A", "s.b": "B", "s.c": "C"}
READ = Step(0.2, 0.0, 3.0, 1e-3, "current")


def _apply(*steps: Step, unselected: Scheme = Scheme.INHIBIT, **more: Any) -> Apply:
    return Apply(Cells.of([(0, 1, 2)]), steps, unselected, **more)


def test_unselected_lines_of_a_transistor_array_hang_on_ground_or_follow_the_source_line() -> None:
    router = _router("1T1R", TWO)
    operation = _apply(READ, Step(0.0, 0.9, 3.5, 1e-3))
    routes = router.routes(operation)
    plan = router.plan(operation, routes, np.array([0]), frozenset(), {})
    read_points = frozenset(plan.visits[0].closed)
    assert read_points == {("B", 2), ("G", 1), ("A", 6), ("G", 4), ("G", 5), ("G", 10)}
    reset_points = read_points - frozenset(plan.visits[1].opened) | frozenset(plan.visits[1].closed)
    assert reset_points == {("B", 2), ("G", 1), ("G", 6), ("A", 4), ("A", 5), ("A", 10)}
    assert (routes[0].sense, routes[0].sign) == ("s.a", 1)
    assert list(routes[0].levels) == ["s.b", "s.a"]


def test_a_third_channel_lets_bit_and_source_line_stand_at_volts_together() -> None:
    both = _apply(Step(1.0, -0.5, 3.0, 1e-3))
    with pytest.raises(ConfigError, match="needs three channels"):
        _router("1T1R", TWO).routes(both)
    route = _router("1T1R", THREE).routes(both)[0]
    assert {c: float(v[0]) for c, v in route.levels.items()} == {
        "s.c": 3.0,
        "s.b": -0.5,
        "s.a": 1.0,
    }


def test_half_the_volts_stand_on_each_line_of_a_resistive_array() -> None:
    router = _router("1R", TWO, "row")
    pulsing = _apply(Step(2.0, 0.0, 0.0, 1e-3), READ, unselected=Scheme.HALF)
    routes = router.routes(pulsing)
    assert {c: float(v[0]) for c, v in routes[0].levels.items()} == {"s.b": -1.0, "s.a": 1.0}
    # A read grounds what is not selected: half-selected cells would else add their currents.
    assert {c: float(v[0]) for c, v in routes[1].levels.items()} == {"s.b": 0.0, "s.a": 0.2}
    assert (routes[1].sense, routes[1].sign) == ("s.b", -1)
    plan = router.plan(pulsing, routes, np.array([0]), frozenset(), {})
    assert set(plan.visits[0].closed) == {("A", 6), ("G", 4), ("G", 5), ("B", 11), ("G", 10)}
    assert plan.visits[1].opened == plan.visits[1].closed == ()


@pytest.mark.parametrize(
    ("cell", "operation", "said"),
    [
        ("1T1R", _apply(Step(1.0, 0.0, 3.0, 1e-3), unselected=Scheme.HALF), "no channel is left"),
        ("1R", _apply(Step(1.0, 0.0, 0.0, 1e-3), unselected=Scheme.THIRD), "no channels are left"),
        (
            "1R",
            _apply(Step(1.0, 0.0, 0.0, 1e-3, "current"), unselected=Scheme.HALF),
            "read after the pulse",
        ),
        (
            "1R",
            _apply(Step(1.0, 0.0, 0.0, 1e-3), unselected=Scheme.HALF, compliance_a=1e-4),
            "does not bound one cell",
        ),
        ("1R", _apply(Step(None, 0.0, 0.0, 1e-3)), "floating line"),
        (
            "1T1R",
            _apply(Step(0.0, 0.9, 3.0, 1e-3, "current"), unselected=Scheme.GROUNDED),
            "that of the whole row",
        ),
    ],
)
def test_what_the_channels_cannot_do_is_refused_by_name(
    cell: str, operation: Apply, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _router(cell, TWO, "row" if cell == "1R" else "common").routes(operation)


def test_a_bench_without_its_links_says_so(tmp_path: Path) -> None:
    path = write_bench(tmp_path, TSP, "1T1R", SIZE)
    driver = _driver(path)
    with pytest.raises(BenchError, match="not connected"):
        driver.safe_off()
    with pytest.raises(ConfigError, match=r"^driver\.instruments\.\w+: resource: missing"):
        driver.connect()
    driver.close()
