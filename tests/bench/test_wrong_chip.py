"""A run goes on only on the board and the chip that it began on, and whatever happens the operator
hears of live outputs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from small_bench import bench_toml

from rram_hil.array import Cells, Geometry, Operation, Result, pulse, read
from rram_hil.bench import bench as bench_module
from rram_hil.bench import recipe as recipe_module
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.ledgers import adopt_ledger
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.drivers.simulated_array import SimulatedArray
from rram_hil.drivers.simulated_array import launch as launch_array
from rram_hil.engine.engine import Watcher
from rram_hil.engine.protocol import Compute, Plan, Protocol, Remark, Save, Setting
from rram_hil.engine.replay import InFlight, Replay
from rram_hil.errors import (
    BenchError,
    ConfigError,
    DataError,
    InstrumentError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Identity
from rram_hil.protocols.forming import Forming
from rram_hil.storage.codec import operation_record
from rram_hil.storage.frames import Failed, Header, Intent, Resume
from rram_hil.storage.journal import Journal, read_journal
from rram_hil.storage.run_reader import read_run

BENCH = bench_toml("c1", 4, 4, 2000, simulation='device = "paper"\nstate = "c1.state"')
RECIPE = """
[[step]]
protocol = "forming"

[[step]]
protocol = "read-map"
"""


class Board(SimulatedArray):
    """The simulated array, answering as the test wants."""

    who: ClassVar[dict[str, str]] = {}
    fails: ClassVar[list[BenchError]] = []
    stays_on: ClassVar[bool] = False

    def connect(self) -> Identity:
        return replace(super().connect(), **self.who)

    def execute(self, operation: Operation, number: int) -> Result:
        if self.fails and not np.any(getattr(operation, "steps", ())[0].cell_v(1) > 1.0):
            raise self.fails.pop()
        return super().execute(operation, number)

    def safe_off(self) -> None:
        if self.stays_on:
            raise InstrumentError("the relay sticks")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench_module, "driver_class", lambda name, folder: Board)
    monkeypatch.setattr(bench_module, "launcher", lambda name: launch_array)
    for name, value in (("who", {}), ("fails", []), ("stays_on", False)):
        monkeypatch.setattr(Board, name, value)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    return path


def run(bench: Path, *, resume: bool = False) -> Any:
    return run_recipe(bench.with_name("recipe.toml"), bench, bench.with_name("r.h5"), resume=resume)


def test_a_chip_that_names_itself_otherwise_is_refused_before_its_ledger_is_taken(
    bench: Path,
) -> None:
    Board.who = {"chip": "c2"}
    with pytest.raises(ConfigError, match="'c1', but the instrument says that chip 'c2'"):
        Bench.open(bench)
    assert not bench.with_name("c1.ledger.npy").exists()
    Board.who = {"chip": ""}
    Bench.open(bench).close()


def test_another_board_may_not_go_on_with_a_run(bench: Path) -> None:
    run(bench)
    Board.who = {"serial": "8"}
    with pytest.raises(
        ConfigError, match=r"this run began on simulated array .* seed-1; the bench now has .* 8"
    ):
        run(bench, resume=True)


def test_a_chip_without_the_pulses_of_a_run_may_not_go_on_with_it(bench: Path) -> None:
    run(bench)
    assert run(bench, resume=True).steps[0][1].cells == 16
    bench.with_name("c1.state").unlink()
    with pytest.raises(ConfigError, match="another chip, or its state is lost"):
        run(bench, resume=True)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_run_resumes_however_often_the_same_read_failed(bench: Path, times: int) -> None:
    for n in range(times):
        Board.fails = [LinkError("the cable fell out")]
        with pytest.raises(LinkError, match="cable"):
            run(bench, resume=n > 0)
    done = run(bench, resume=True)
    assert [name for name, _ in done.steps] == ["forming", "read-map"]


def test_a_read_with_an_unknown_outcome_is_no_map_of_unreadable_cells(bench: Path) -> None:
    Board.fails = [UnknownOutcomeError("the watchdog bit")]
    with pytest.raises(UnknownOutcomeError, match="stresses no cell: run with --resume"):
        run(bench)
    assert run(bench, resume=True).steps[1][1].unreadable == 0


def test_an_error_that_the_run_ended_with_is_tried_again_and_one_that_it_survived_is_told_again(
    tmp_path: Path,
) -> None:
    first, second = (read(_cell(n)) for n in (1, 2))
    path = tmp_path / "j"
    header = _header()

    def intent(number: int, operation: Operation) -> Intent:
        return Intent(number, 1, operation_record(operation), np.zeros(1, dtype=np.int64), 0.0)

    with Journal.create(path, header) as journal:
        journal.append(intent(1, first))
        journal.append(Failed(1, "LinkError", "lost"))
        journal.append(Resume("", header.instrument))
        journal.append(Failed(2, "LinkError", "lost again"))
        journal.append(intent(3, second))
    replay = Replay(read_journal(path))
    with pytest.raises(LinkError, match="lost again"):
        replay.operation(first)
    assert isinstance(replay.operation(second), InFlight)


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()])
def test_outputs_that_stay_on_are_told_even_where_something_else_went_wrong(
    bench: Path, error: BaseException
) -> None:
    Board.stays_on = True
    with (
        pytest.raises(BenchError, match=r"OUTPUTS COULD NOT BE VERIFIED AS OFF .*relay sticks"),
        Bench.open(bench),
    ):
        raise error


def test_what_is_no_operation_or_no_choice_of_cells_is_refused(bench: Path) -> None:
    with Bench.open(bench) as opened:
        for wrong in (42, None, "read"):
            with pytest.raises(ConfigError, match="is no operation"):
                opened.do(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="cells: rows"):
            opened.cells(rows=3)  # type: ignore[arg-type]
        result = opened.apply(pulse(opened.cells(), bl_v=[2.0] * 16, wl_v=2.0, width_s=1e-6))  # type: ignore[arg-type]
        assert result.pulses.tolist() == [1] * 16
        assert "chip c1, 1 x 4 x 4" in repr(opened)


def test_a_chip_that_its_board_knows_needs_its_ledger(bench: Path) -> None:
    with Bench.open(bench) as opened:
        opened.do(pulse(opened.cells(), bl_v=2.0, wl_v=2.0, width_s=1e-6))
        assert opened.ledger_warning == ""
    with Bench.open(bench) as opened:
        assert opened.ledger_warning == ""
    bench.with_name("c1.ledger.npy").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match=r"pulses given before would not be counted.*adopt"):
            Bench.open(bench)
    adopt_ledger(load_bench_file(bench), None, 5)
    with Bench.open(bench) as opened:
        assert opened.ledger is not None
        assert (opened.ledger.counts == 5).all()


def test_an_array_that_was_formed_before_is_not_declared_stuck(bench: Path) -> None:
    run(bench)
    with Bench.open(bench) as opened:
        pulses = opened.ledger.counts.sum() if opened.ledger else 0
        with pytest.raises(ConfigError, match="formed before; leave the step out"):
            opened.run(Forming())
        assert opened.ledger is not None
        assert opened.ledger.counts.sum() == pulses
        summary: Any = opened.run(Forming(conducting_fraction=1.0))
        assert summary.stuck_low_resistance > 8


class Training(Protocol):
    """One computation that answers with plain numbers and lists."""

    def run(self, setting: Setting) -> Plan[str]:
        arrays = yield Compute("c", lambda do: {"a": 3.0, "b": [1, 2]})  # type: ignore[dict-item]
        return ", ".join(
            f"{name} {array.dtype} {array.shape}" for name, array in sorted(arrays.items())
        )


class Remarks(Protocol):
    """Tells the operator something."""

    def run(self, setting: Setting) -> Plan[None]:
        yield Remark("most cells do not conduct")
        yield Save("done", np.ones(()))


class NoGenerator(Protocol):
    """A beginner's: it returns instead of yielding."""

    def run(self, setting: Setting) -> Plan[int]:
        return 3  # type: ignore[return-value]


def test_what_a_computation_gives_is_the_same_live_and_resumed(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "protocol_class", lambda name, folder: Training)
    bench.with_name("recipe.toml").write_text('[[step]]\nprotocol = "training"\n')
    live, resumed = run(bench).steps, run(bench, resume=True).steps
    assert live == resumed == (("training", "a float64 (), b int64 (2,)"),)


def test_what_a_protocol_remarks_is_told_and_kept_once(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_module, "protocol_class", lambda name, folder: Remarks)
    bench.with_name("recipe.toml").write_text('[[step]]\nprotocol = "remarks"\n')
    told: list[str] = []

    class Listener(Watcher):
        def note(self, text: str) -> None:
            told.append(text)

    where = bench.with_name("recipe.toml"), bench, bench.with_name("r.h5")
    for resume in (False, True):
        run_recipe(*where, resume=resume, watcher=Listener())
    assert told.count("most cells do not conduct") == 1
    with read_run(where[2]) as kept:
        assert list(kept.table("notes")["text"]).count("most cells do not conduct") == 1


def test_a_protocol_that_yields_nothing_is_told_so(bench: Path) -> None:
    with (
        Bench.open(bench) as opened,
        pytest.raises(ConfigError, match=r"must yield its operations .* returned a int"),
    ):
        opened.run(NoGenerator())


def test_a_resumed_run_says_what_it_does(bench: Path) -> None:
    run(bench)
    notes: list[str] = []

    class Listener(Watcher):
        def note(self, text: str) -> None:
            notes.append(text)

    run_recipe(
        bench.with_name("recipe.toml"),
        bench,
        bench.with_name("r.h5"),
        resume=True,
        watcher=Listener(),
    )
    assert any("is taken from its journal" in note for note in notes)


def _cell(n: int) -> Any:
    return Cells.of([(0, 0, n)])


def _header() -> Header:
    return Header(
        "r",
        "c1",
        Geometry(1, 1, 4),
        "",
        "",
        "2026-01-01T00:00:00Z",
        "virtual",
        Identity("lab", "1"),
        "0",
    )
