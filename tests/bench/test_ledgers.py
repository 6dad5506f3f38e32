"""Where a chip's ledger lies, how older ones are taken over, and the commands that mend."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bench import bench_toml

from rram_hil import cli
from rram_hil.array import Cells, pulse
from rram_hil.bench import bench as bench_module
from rram_hil.bench import ledgers
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import BenchFile, load_bench_file
from rram_hil.bench.ledgers import adopt_ledger, merge_ledger, ready_ledger
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.drivers.simulated_array import SimulatedArray
from rram_hil.drivers.simulated_array import launch as launch_array
from rram_hil.engine.engine import Watcher
from rram_hil.errors import ConfigError, DataError, LimitError
from rram_hil.storage import ledger_file
from rram_hil.storage.ledger import Ledger
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_state import journal_of

BOARD = 'name = "test-chip-board"\nport = "socket://nowhere:1"'
REAL = bench_toml("lot7-die12", 4, 4, 40, driver=BOARD, simulation=None)
SIMULATED = bench_toml("lot7-die12", 4, 4, 40, simulation=None)
RECIPE = '[[step]]\nprotocol = "forming"\n\n[[step]]\nprotocol = "read-map"\n'


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., BenchFile]:
    """A bench file in a folder of its own."""

    def write(folder: str, text: str = REAL) -> BenchFile:
        path = tmp_path / folder / "bench.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return load_bench_file(path)

    return write


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """This machine's folder of ledgers and the user's."""
    machine, user = tmp_path / "machine" / "ledgers", tmp_path / "user" / "ledgers"
    monkeypatch.delenv("RRAM_HIL_LEDGERS")
    monkeypatch.setattr(ledgers, "_machine_folder", lambda: machine)
    monkeypatch.setattr(ledgers, "_user_folder", lambda: user)
    return machine, user


def charged(file: BenchFile, path: Path, pulses: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Ledger(path, file.chip.geometry, file.chip.id, limit=1000) as ledger:
        ledger.charge(Cells.all(file.chip.geometry), pulses)
    return path


def test_two_bench_files_of_one_chip_share_its_ledger(
    bench: Callable[..., BenchFile], folders: tuple[Path, Path]
) -> None:
    one, other = bench("one"), bench("other")
    path, remark = ready_ledger(one)
    assert (path, remark) == (folders[0] / "lot7-die12.ledger.npy", "")
    charged(one, path, 7)
    assert ready_ledger(other) == (path, "")
    assert one.ledger_path == other.ledger_path == path


def test_the_bench_file_may_say_otherwise(bench: Callable[..., BenchFile]) -> None:
    file = bench("one", REAL.replace('cell = "1T1R"', 'cell = "1T1R"\nledger = "mine.npy"'))
    assert ready_ledger(file) == (file.folder / "mine.npy", "")


def test_a_folder_may_be_named_for_all_chips(
    bench: Callable[..., BenchFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRAM_HIL_LEDGERS", str(tmp_path / "lab"))
    assert ready_ledger(bench("one")) == (tmp_path / "lab" / "lot7-die12.ledger.npy", "")
    assert (tmp_path / "lab").is_dir()


def test_where_the_machine_s_folder_cannot_be_written_the_user_s_is_used_and_that_is_said(
    bench: Callable[..., BenchFile], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bench("one")
    monkeypatch.setattr(ledgers, "_is_writable", lambda folder: False)
    path, remark = ready_ledger(file)
    assert path.parent == folders[1]
    assert "other users of this machine count apart" in remark
    # A ledger that the machine's folder has is the chip's, whether it can be written or not.
    charged(file, folders[0] / path.name, 3)
    assert ready_ledger(file)[0].parent == folders[0]
    charged(file, path, 3)
    with pytest.raises(DataError, match="two ledgers"):
        ready_ledger(file)


def test_a_ledger_beside_the_bench_file_is_taken_over_once(
    bench: Callable[..., BenchFile], folders: tuple[Path, Path]
) -> None:
    file = bench("one")
    beside = charged(file, file.folder / "lot7-die12.ledger.npy", 7)
    path, remark = ready_ledger(file)
    assert "taken over" in remark
    assert (np.load(path) == 7).all()
    assert not beside.exists()
    assert ready_ledger(file) == (path, "")
    # A second one in another folder is no copy of it.
    second = bench("two")
    charged(second, second.folder / beside.name, 4)
    with pytest.raises(DataError, match=r"two ledgers.*rram-hil ledger merge"):
        ready_ledger(second)
    merge_ledger(second, second.folder / beside.name, unrelated=True)
    assert ready_ledger(second) == (path, "")
    assert (np.load(path) == 11).all()


def test_a_take_over_that_was_killed_half_way_is_finished(
    bench: Callable[..., BenchFile], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bench("one")
    beside = charged(file, file.folder / "lot7-die12.ledger.npy", 7)

    def killed(path: Path, how: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "set_aside", killed)
        with pytest.raises(KeyboardInterrupt):
            ready_ledger(file)
    path = file.ledger_path
    charged(file, path, 2)
    assert "taken over before" in ready_ledger(file)[1]
    assert not beside.exists()
    assert (np.load(path) == 9).all()


def test_a_simulated_chip_s_ledger_lies_beside_its_state(
    bench: Callable[..., BenchFile], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "chips").mkdir()
    text = SIMULATED + '\n[simulation]\nstate = "../chips/c.state"\n'
    for name in ("one", "two"):
        with Bench.open(bench(name, text)) as opened:
            opened.do(pulse(opened.cells(), bl_v=2.0, wl_v=2.0, width_s=1e-6))
    assert (np.load(tmp_path / "chips" / "lot7-die12.ledger.npy") == 2).all()
    assert not any(folder.exists() for folder in folders)
    assert bench("three", SIMULATED + "\n[simulation]\n").ledger_path.parent == tmp_path / "three"


def test_a_ledger_is_put_back_or_begun_by_hand(
    bench: Callable[..., BenchFile], tmp_path: Path
) -> None:
    file = bench("one")
    copy = charged(file, tmp_path / "copy.npy", 9)
    path = adopt_ledger(file, copy, None)
    assert (np.load(path) == 9).all()
    adopt_ledger(file, None, 3)
    assert (np.load(path) == 12).all()
    with pytest.raises(DataError, match="has a ledger already"):
        adopt_ledger(file, copy, None)
    path.unlink()
    adopt_ledger(file, None, 3)
    assert (np.load(path) == 3).all()
    path.unlink()
    adopt_ledger(file, copy, 4)
    assert (np.load(path) == 13).all()
    with pytest.raises(ConfigError, match="give a FILE, or --pulses"):
        adopt_ledger(file, None, None)
    with pytest.raises(ConfigError, match="0 or more"):
        adopt_ledger(file, None, -1)


def test_the_commands_say_what_a_ledger_holds_and_mend_it(
    bench: Callable[..., BenchFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(list(words))
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    file = bench("one")
    bench_option = ("--bench", str(file.path))
    status, said = command("ledger", "show", *bench_option)
    assert status != 0
    assert "cannot be read: there is none yet; a chip's begins at zero" in said
    assert command("ledger", "adopt", "--pulses", "5", *bench_option)[0] == 0
    status, said = command("ledger", "show", *bench_option)
    assert status == 0
    assert "80 pulses in all" in said
    assert "5 of 40" in said
    assert command("ledger", "show", str(file.path)) == (0, said)
    copy = shutil.copy(file.ledger_path, tmp_path / "copy.npy")
    charged(file, file.ledger_path, 1)
    charged(file, Path(copy), 2)
    status, said = command("ledger", "merge", str(copy), *bench_option)
    assert status == 0, said
    assert (np.load(file.ledger_path) == 8).all()
    assert not Path(copy).exists()
    assert "merged with ledger" in command("ledger", "show", *bench_option)[1]


def test_a_chip_that_was_used_with_another_ledger_is_refused_until_that_is_added(
    bench: Callable[..., BenchFile],
) -> None:
    text = SIMULATED + '\n[simulation]\nstate = "c.state"\n'
    one = bench("one", text)
    other = bench("one", text.replace('"1T1R"', '"1T1R"\nledger = "other.npy"', 1))

    def used(file: BenchFile) -> None:
        with Bench.open(file) as opened:
            opened.do(pulse(opened.cells(), bl_v=2.0, wl_v=2.0, width_s=1e-6))

    used(one)
    adopt_ledger(other, one.ledger_path, None)
    used(other)
    used(other)
    with pytest.raises(DataError, match=r"used with another ledger.*rram-hil ledger merge"):
        used(one)
    merge_ledger(one, other.ledger_path)
    used(one)
    assert (np.load(one.ledger_path) == 4).all()
    adopt_ledger(other, one.ledger_path, None)
    used(one)
    with pytest.raises(DataError, match="used with another ledger"):
        used(other)
    adopt_ledger(other, None, 1)
    used(other)
    assert (np.load(other.ledger_path) == 6).all()


class Board(SimulatedArray):
    """The simulated array as a board that keeps no records."""

    @property
    def capabilities(self) -> Any:
        return replace(super().capabilities, counters=False)

    def executed(self, number: int, cells: Any) -> None:
        return None

    def last_number(self) -> int:
        return 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, and a bench whose board keeps no records."""
    monkeypatch.setattr(bench_module, "driver_class", lambda name, folder: Board)
    monkeypatch.setattr(bench_module, "launcher", lambda name: launch_array)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "bench.toml").write_text(SIMULATED + '\n[simulation]\nstate = "c.state"\n')
    return tmp_path


class Listener(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(place: Path, name: str = "r.h5", *, resume: bool = False) -> list[str]:
    listener = Listener()
    run_recipe(
        place / "recipe.toml",
        place / "bench.toml",
        place / name,
        resume=resume,
        watcher=listener,
    )
    return listener.notes


def test_a_run_that_goes_on_after_another_says_that_its_maps_are_older(place: Path) -> None:
    run(place)
    assert not any("touched between" in note for note in run(place, resume=True))
    with Bench.open(place / "bench.toml") as opened:
        opened.do(pulse(opened.cells(), bl_v=2.0, wl_v=2.0, width_s=1e-6))
    notes = run(place, resume=True)
    assert any(
        "touched between by a session without a journal: maps and `inside`" in note
        for note in notes
    )
    with read_run(place / "r.h5") as kept:
        assert any("touched between" in text for text in kept.table("notes")["text"])


@pytest.mark.parametrize("how", ["deleted", "zeroed", "older"])
def test_a_run_does_not_go_on_without_its_chip_s_ledger(place: Path, how: str) -> None:
    path = place / "lot7-die12.ledger.npy"
    Bench.open(place / "bench.toml").close()
    older = path.read_bytes()
    run(place)
    copy = shutil.copy(path, place / "copy.npy")
    file = load_bench_file(place / "bench.toml")
    if how == "deleted":
        path.unlink()
    elif how == "zeroed":
        path.unlink()
        Ledger(path, file.chip.geometry, file.chip.id, limit=40).close()
    else:
        path.write_bytes(older)
    with pytest.raises(DataError, match=r"is another one|is behind"):
        run(place, resume=True)
    if how != "older":
        adopt_ledger(file, Path(copy), None)
        run(place, resume=True)


@pytest.mark.long
def test_a_journal_that_lost_its_end_gives_no_cell_a_pulse_too_many(place: Path) -> None:
    run(place)
    journal = journal_of(place / "r.h5")
    whole, before = journal.read_bytes(), np.load(place / "lot7-die12.ledger.npy")
    cuts = [n for n in range(1, len(whole)) if whole.startswith(b"RHJ1", n)]
    state = (place / "c.state").read_bytes()
    ledger = (place / "lot7-die12.ledger.npy").read_bytes()
    refused = 0
    for cut in cuts:
        journal.write_bytes(whole[:cut])
        (place / "c.state").write_bytes(state)
        (place / "lot7-die12.ledger.npy").write_bytes(ledger)
        try:
            run(place, resume=True)
        except (DataError, ConfigError, LimitError):
            refused += 1
        # Forming finds out by itself what is formed: nobody is given a pulse again.
        after = np.load(place / "lot7-die12.ledger.npy")
        assert (after - before).max() <= 8, cut
    assert refused


def test_a_ledger_deleted_while_a_run_counts_into_it_is_no_success(place: Path) -> None:
    path = place / "lot7-die12.ledger.npy"

    class Deletes(Watcher):
        def step(self, name: str, index: int, total: int) -> None:
            if index == 2:
                os.unlink(path)

    with pytest.raises(DataError, match="deleted, moved or replaced"):
        run_recipe(place / "recipe.toml", place / "bench.toml", place / "r.h5", watcher=Deletes())
    assert np.load(path).any()
    run(place, resume=True)


def test_a_bench_that_cannot_be_opened_gives_back_ledger_and_outputs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off: list[str] = []
    monkeypatch.setattr(Board, "safe_off", lambda self: off.append("off"))

    def lost(self: Board) -> int:
        raise DataError("the cable fell out")

    with monkeypatch.context() as patch:
        patch.setattr(Board, "last_number", lost)
        with pytest.raises(DataError, match="the cable fell out"):
            Bench.open(place / "bench.toml")
    assert off == ["off"]
    Bench.open(place / "bench.toml").close()


def test_the_whole_ledger_of_a_crashed_start_is_no_chip_s_history(place: Path) -> None:
    """A process killed between making the ledger and its first entry leaves one without entries."""
    file = load_bench_file(place / "bench.toml")
    ledger_file.write_whole(
        file.ledger_path, ledger_file.Content.new(file.chip.id, file.chip.geometry)
    )
    run(place)
    run(place, resume=True)
