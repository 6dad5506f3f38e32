"""Benches with a pulse generator: an array behind a matrix whose short pulses it gives, and one
cell between a generator and a source-meter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain_benches import PULSED, bench_text
from chains import program

from rram_hil import Bench, pulse, read, sweep
from rram_hil.array import Apply, Cells, Geometry, Limits, Multiply, Scheme, Status, Step, Stop
from rram_hil.drivers.matrix.routes import Router
from rram_hil.drivers.matrix.wiring import Wiring
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.errors import ConfigError, LimitError, LinkError
from rram_hil.hardware.abilities import WithGenerator
from rram_hil.pytest_plugin import LIMITS, GroundTruth
from rram_hil.terminal.console import Output
from rram_hil.terminal.screens import show_bench

B1500, AWG = PULSED
CHAINS = "rram_hil.drivers.matrix.chains"
WIDTH_S = 1e-6
Opened = tuple[Bench, GroundTruth, BoardControl]
DIRECT = {
    "B1500A": (
        '[driver.instruments.analyser]\nkind = "keysight-b1500"\n',
        'channels = { "analyser.1" = "sl" }\ngenerators = { "analyser.501" = "bl" }',
    ),
    "2450 + 33511B": (
        '[driver.instruments.smu]\nkind = "keithley-2450"\n'
        '[driver.instruments.pulser]\nkind = "keysight-33500"\nmodel = "33511B"\n',
        'channels = { "smu.1" = "bl" }\ngenerators = { "pulser.1" = "sl" }',
    ),
}


def direct_text(pair: str) -> str:
    """The bench file of one cell between a generator and a source-meter."""
    instruments, wiring = DIRECT[pair]
    whole = bench_text(B1500, "1R", 1)
    head, rest = whole.split("[driver]\n")
    limits = rest[rest.index("[limits]") :]
    limits = limits.replace("half_select_v = 2.2", "half_select_v = 4.0")
    limits = limits.replace("sl_v = 3.0", "sl_v = 4.0")
    return f'{head}[driver]\nname = "smu-matrix"\n{instruments}[driver.wiring]\n{wiring}\n{limits}'


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[Callable[[str], Opened]]:
    """Opens a simulated bench; at the end nothing may have been switched hot, no two channels
    joined, and `safe_off` leaves every output off.
    """
    opened: list[Opened] = []

    def make(text: str) -> Opened:
        path = tmp_path / "bench.toml"
        path.write_text(text, encoding="utf-8")
        bench = Bench.open(path)
        assert bench.far_side is not None
        opened.append((bench, GroundTruth(bench), BoardControl(bench.far_side.control)))
        return opened[-1]

    yield make
    for bench, _, control in opened:
        told = control.status()
        assert (told["hot_switches"], told["shorts"]) == (0, 0)
        bench.driver.safe_off()
        assert not control.status()["outputs_on"]
        bench.close()
        control.close()


def sources_on(control: BoardControl) -> bool:
    """Whether an output is on; relays may stand closed between operations."""
    return any(on for name, on in control.status()["outputs"].items() if name != "matrix")


def form(bench: Bench, scheme: Scheme = Scheme.INHIBIT) -> None:
    levels, step = [2.4, 2.8, 3.2, 3.6], bench.file.read.step
    stop, gate = Stop(above_s=20e-6), {"wl_v": 2.0} if bench.geometry.cell == "1T1R" else {}
    bench.do(
        sweep(
            bench.cells(), "bl", levels, **gate, width_s=WIDTH_S, read=step, stop=stop,
            unselected=scheme,
        )
    )  # fmt: skip


@pytest.mark.parametrize("chain", [B1500, pytest.param(AWG, marks=pytest.mark.long)])
def test_microsecond_pulses_reach_the_cells_and_are_counted(
    open_bench: Callable[[str], Opened], chain: str
) -> None:
    bench, truth, control = open_bench(bench_text(chain, "1T1R", 2))
    assert bench.capabilities.width_s.low <= 50e-9
    form(bench)
    assert bench.ledger is not None
    assert np.array_equal(bench.ledger.counts.ravel(), truth.pulses().ravel())
    before, moved = truth.conductance_s()[0].ravel(), bench.cells(rows=(1, 1))
    shot = pulse(moved, sl_v=np.array([1.2, 1.3]), wl_v=3.5, width_s=WIDTH_S)
    assert np.array_equal(bench.do(shot).pulses, [1, 1])
    after = truth.conductance_s()[0].ravel()
    chosen = moved.index(bench.geometry)
    responsive = truth.named("stuck")[0].ravel()[chosen] == 0
    assert np.all(after[chosen][responsive] < before[chosen][responsive])
    others = np.setdiff1d(np.arange(4), chosen)
    assert np.array_equal(after[others], before[others])
    result = bench.apply(read(bench.cells(), bench.file.read.step))
    assert np.all(result.status == Status.OK)
    can = bench.capabilities
    allowed = can.read_fraction * after + can.read_floor_a / 0.2 + 5 * np.hypot(0.002 * after, 1e-8)
    assert np.all(np.abs(result.last_s - after) <= allowed)
    assert not sources_on(control)


def test_a_pulse_waits_until_its_gate_is_up(
    open_bench: Callable[[str], Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _, _ = open_bench(bench_text(B1500, "1T1R", 2))
    meter = next(i for i in bench.driver.instruments.values() if isinstance(i, WithGenerator))
    told: list[tuple[str, float]] = []
    source, fire = meter.source, meter.generator.fire
    monkeypatch.setattr(meter, "source", lambda c, v: (told.append(("gate", v)), source(c, v))[1])
    monkeypatch.setattr(
        meter.generator, "fire", lambda c, n: (told.append(("fire", n)), fire(c, n))[1]
    )
    monkeypatch.setattr(f"{CHAINS}.time.sleep", lambda s: told.append(("wait", s)))
    bench.do(pulse(bench.cells(rows=(1, 1)), bl_v=2.0, wl_v=1.5, width_s=WIDTH_S))
    wait = "wait", meter.limits(meter.channels[0]).settle_s
    assert told == [("gate", 1.5), wait, ("fire", 1), ("fire", 1), ("gate", 0.0), wait]


def test_a_ctrl_c_while_one_instrument_goes_off_does_not_keep_the_others_on(
    open_bench: Callable[[str], Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _, _ = open_bench(bench_text(B1500, "1T1R", 2))
    analyser, *others = bench.driver.instruments.values()
    tried: list[object] = []

    def impatient() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(analyser, "safe_off", impatient)
        for other in others:
            patched.setattr(other, "safe_off", lambda other=other: tried.append(other))
        with pytest.raises(KeyboardInterrupt):
            bench.driver.safe_off()
    assert tried == others


def test_a_clock_that_is_lost_between_rows_leaves_outputs_off(
    open_bench: Callable[[str], Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _, control = open_bench(bench_text(B1500, "1T1R", 2))
    times = iter([0.0, 0.0])  # when the operation and its first row began

    def lost() -> float:
        for time_s in times:
            return time_s
        raise LinkError("no reply")

    with monkeypatch.context() as patched:
        patched.setattr(bench.driver, "now_s", lost)
        with pytest.raises(LinkError, match="no reply") as caught:
            bench.driver.execute(read(bench.cells(), bench.file.read.step), 1)
    assert caught.value.outputs_off
    assert not sources_on(control)


@pytest.mark.long
def test_a_read_costs_what_it_does_without_a_generator(open_bench: Callable[[str], Opened]) -> None:
    bench, _, _ = open_bench(bench_text(AWG, "1T1R", 2))
    before = bench.driver.transactions
    bench.apply(read(bench.cells(), bench.file.read.step))
    assert bench.driver.transactions - before == 2


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"compliance_a": 1e-4}, "asks for a compliance, which a generator has not"),
    ({"measure": "current"}, "measures at its level"),
    ({"bl_v": 0.1}, "is a read"),
    ({"sl_v": 0.5}, "drives one line"),
    ({"bl_v": 11.0}, "beyond"),
    ({"width_s": 1e-9}, "1e-09 s"),
    ({"unselected": Scheme.HALF}, "half"),
]


def test_what_a_generator_cannot_do_is_refused_before_anything_moves(
    open_bench: Callable[[str], Opened],
) -> None:
    bench, _, control = open_bench(bench_text(AWG, "1T1R", 2))
    before = control.status()["closures"]
    for change, words in REFUSED:
        keys: dict[str, Any] = {"bl_v": 2.0, "sl_v": 0.0, "wl_v": 2.0, "width_s": WIDTH_S} | change
        options = {k: keys.pop(k) for k in ("compliance_a", "unselected") if k in keys}
        with pytest.raises((ConfigError, LimitError), match=words):
            bench.do(Apply(bench.cells(), (Step(**keys),), **options))
    assert control.status()["closures"] == before
    assert bench.ledger is not None
    assert not bench.ledger.counts.any()


def test_a_product_is_read_by_the_source_meters_not_by_the_generator(
    open_bench: Callable[[str], Opened],
) -> None:
    bench, _, _ = open_bench(bench_text(AWG, "1T1R", 2))
    product = bench.do(Multiply(0, 0, 0, 2, np.array([[127, -127]], dtype=np.int16)))
    assert product.emulated
    assert product.codes.shape == (1, 2)


def router(load_ohm: float = 0.0, **limits: float) -> Router:
    """Routes of a 2 x 2 1T1R bench with a generator on row D."""
    wiring = Wiring(
        channels={"s.a": "A", "s.b": "B"},
        generators={"g.1": "D"},
        load_ohm=load_ohm,
        ground="C",
        wl="1-2",
        bl="3-4",
        sl="5",
    )
    geometry = Geometry(tiles=1, rows=2, columns=2, cell="1T1R", source_lines="common")
    return Router(wiring, geometry, Limits.model_validate(LIMITS | limits), 1e-3)


def test_a_level_that_would_double_without_its_load_is_refused() -> None:
    cells = Cells.of([(0, 0, 0)])
    shot = Apply(cells, (Step(bl_v=2.0, sl_v=0.0, wl_v=2.0, width_s=1e-6),))
    limit = float(Limits.model_validate(LIMITS).bl_v)
    assert limit >= 2.0
    [route] = router(50.0, bl_v=4.0, cell_v=4.0).routes(shot)
    assert route.generator == "g.1"
    assert route.pulse_v is not None
    assert route.pulse_v[0] == 2.0
    with pytest.raises(ConfigError, match="4 V on BL if its load of 50 ohm came off"):
        router(50.0, bl_v=3.0, cell_v=3.0).routes(shot)
    assert router(0.0, bl_v=3.0, cell_v=3.0).routes(shot)[0].generator == "g.1"


def test_what_would_double_without_its_load_is_held_from_gates_and_other_cells_too() -> None:
    cells = Cells.of([(0, 0, 0)])
    limits = {"bl_v": 4.0, "cell_v": 4.0, "gate_over_v": 3.5, "half_select_v": 3.0}
    shot = Apply(cells, (Step(bl_v=-1.0, sl_v=0.0, wl_v=2.0, width_s=1e-6),))
    with pytest.raises(
        ConfigError, match=r"50 ohm came off: .*WL above the lower of BL and SL 4 V"
    ):
        router(50.0, **limits).routes(shot)
    half = Apply(cells, (Step(bl_v=-1.6, sl_v=0.0, wl_v=0.0, width_s=1e-6),))
    with pytest.raises(ConfigError, match=r"50 ohm came off: .*half-selected cell's 3\.2 V"):
        router(50.0, **limits).routes(half)
    for operation in (shot, half):
        assert router(0.0, **limits).routes(operation)[0].generator == "g.1"


def test_what_source_meters_time_is_theirs() -> None:
    cells = Cells.of([(0, 0, 0)])
    for width_s, name in ((1e-3, ""), (0.9e-3, "g.1")):
        shot = Apply(cells, (Step(bl_v=2.0, sl_v=0.0, wl_v=2.0, width_s=width_s),))
        assert router().routes(shot)[0].generator == name


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"channels": {"s.1": "bl"}}, 'one on "sl"'),
        ({"channels": {"s.1": "bl", "s.2": "sl"}, "ground": "C"}, "no ground"),
        ({"channels": {"s.1": "bl"}, "generators": {"g.1": "bl"}}, 'one on "sl"'),
        ({"channels": {"s.1": "A"}, "bl": "1", "sl": "2"}, "ground is missing"),
    ],
)
def test_wiring_that_makes_no_bench_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Wiring(**keys)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"analyser.501" = "D"', '"analyser.3" = "D"', "'analyser.3' is no channel of a pulse gen"),
        ('"analyser.501" = "D"', '"pulser.1" = "D"', "there is no instrument 'pulser'"),
        ('"analyser.501" = "D"', '"analyser.501" = "A"', "are on one matrix row"),
        ('"analyser.501" = "D"', '"analyser.501" = "D", "analyser.502" = "E"', "at most 1"),
        ('ground = "C"', 'ground = "C"\nload_ohm = -1.0', "load_ohm"),
    ],
)
def test_a_generator_that_is_none_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(bench_text(B1500, "1T1R", 2).replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        Bench.open(path).close()


def test_a_matrix_beside_a_direct_pair_is_refused(tmp_path: Path) -> None:
    matrix = '[driver.instruments.matrix]\nkind = "keithley-707b"\n\n[driver.wiring]'
    path = tmp_path / "bench.toml"
    text = direct_text("B1500A").replace("[driver.wiring]", matrix)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="has no channel"):
        Bench.open(path).close()


def test_a_pair_of_lines_holds_one_cell() -> None:
    wiring = Wiring(channels={"s.1": "bl", "s.2": "sl"})
    with pytest.raises(ConfigError, match="need a matrix"):
        wiring.check(Geometry(tiles=1, rows=2, columns=2, cell="1R", source_lines="row"))


@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, marks=[pytest.mark.long] * (at > 0)) for at, pair in enumerate(DIRECT)],
)
def test_one_cell_between_a_generator_and_a_source_meter_is_set_reset_and_read(
    open_bench: Callable[[str], Opened], pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, truth, control = open_bench(direct_text(pair))
    show_bench(bench, Output())
    told = capsys.readouterr().out
    assert "word line" not in told
    assert "BL, SL" in told
    step, cells = bench.file.read.step, bench.cells()
    # What it reads has the generator's 50 ohm in series.
    assert 0.1 > bench.capabilities.read_fraction >= 50.0 * bench.limits.conductance_s[1]
    form(bench)
    formed = truth.conductance_s().item()
    assert formed > 20e-6
    for _ in range(4):
        bench.do(pulse(cells, bl_v=-1.2, wl_v=3.5, width_s=WIDTH_S))
    low = truth.conductance_s().item()
    assert low < 0.8 * formed
    result = bench.apply(read(cells, step))
    assert result.status.item() == Status.OK
    assert result.last_s.item() == pytest.approx(low, rel=0.05, abs=0.5e-6)
    assert bench.ledger is not None
    assert bench.ledger.counts.item() == truth.pulses().item()
    assert bench.driver.wear().startswith("no relays")
    assert not sources_on(control)


@pytest.mark.long
def test_a_lost_reply_in_a_burst_leaves_outputs_off_and_the_outcome_unknown(
    open_bench: Callable[[str], Opened],
) -> None:
    text = bench_text(B1500, "1T1R", 2).replace("\nmodel =", "\ntimeout_s = 0.25\nmodel =")
    bench, _, control = open_bench(text)
    control.inject("drop-reply", on="SRP", instrument="analyser")
    result = bench.apply(pulse(bench.cells(), bl_v=2.0, wl_v=2.0, width_s=WIDTH_S))
    assert result.interrupted
    assert not control.status()["outputs_on"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chain", PULSED)
def test_sixteen_rows_are_programmed_by_microsecond_pulses(chain: str) -> None:
    found = program(chain, "1T1R", 16)
    assert found.cells > 200
    assert found.inside >= 0.994
