"""A bug in somebody's own protocol: one line, outputs off, and the journal, the run file and `show`
say what and where.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.errors import ProtocolError
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.storage.frames import Close, Note
from rram_hil.storage.journal import read_journal
from rram_hil.storage.run_reader import read_run

MINE = '''\
"""A protocol with a bug."""

import numpy as np

from rram_hil import Cells, read
from rram_hil.engine.protocol import Compute, Protocol


def ratio(values):
    return 1 / (values.size - 256)


class Mine(Protocol):
    """Reads, and then divides by zero."""

    place: str = "protocol"

    def run(self, setting):
        """Yields a read."""
        if self.place == "before":
            raise KeyError("meter")
        result = yield read(Cells.all(setting.geometry), setting.read)
        if self.place == "computation":
            yield Compute("ratio", lambda do: {"ratio": ratio(result.last_s)})
        if self.place == "library":
            np.zeros(3).reshape(2, 2)
        return ratio(result.last_s)
'''
RECIPE = """\
title = "buggy"

[[step]]
protocol = "read-map"

[[step]]
name = "own"
protocol = "./mine.py:Mine"
place = "{place}"
"""
RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")
DIVISION = "ZeroDivisionError: division by zero"
PLACES = {
    "protocol": (DIVISION, "mine.py:10 in ratio", ["mine.py:27 in run", "mine.py:10 in ratio"]),
    "computation": (
        DIVISION,
        "mine.py:10 in ratio",
        ["mine.py:24 in <lambda>", "mine.py:10 in ratio"],
    ),
    "before": ("KeyError: 'meter'", "mine.py:21 in run", ["mine.py:21 in run"]),
    "library": (
        "ValueError: cannot reshape array of size 3 into shape (2,2)",
        "mine.py:26 in run",
        ["mine.py:26 in run"],
    ),
}


@pytest.fixture
def buggy(here: Any) -> Any:
    here.write("mine.py", MINE)
    here.write("recipe.toml", RECIPE.format(place="protocol"))
    return here


@pytest.mark.parametrize("place", PLACES)
def test_the_line_the_journal_the_run_file_and_show_say_what_and_where(
    buggy: Any, place: str
) -> None:
    what, where, frames = PLACES[place]
    buggy.write("recipe.toml", RECIPE.format(place=place))
    said = buggy.command(*RUN)
    assert said.status == 2
    line = f"step 2 (own): protocol ./mine.py:Mine: {what} ({where})"
    assert said.err.splitlines()[-1] == f"rram-hil: {line}"
    assert "Traceback" not in said.err

    journal = list(read_journal(buggy.folder / "r.h5.journal"))
    kept = next(f.text for f in journal if isinstance(f, Note) and f.event == "error")
    assert kept.startswith(line)
    assert kept.endswith(f"last frames: {', '.join(frames)}")
    assert str(buggy.folder) not in kept
    assert isinstance(journal[-1], Close)
    assert journal[-1].status == "error"

    with h5py.File(buggy.folder / "r.h5") as file:
        assert file.attrs["status"] == "error"
        assert kept.encode() in list(file["notes/text"])
    with read_run(buggy.folder / "r.h5") as run:
        assert kept in list(run.table("notes")["text"])

    shown = " ".join(buggy.command("show", "r.h5").out.split())
    assert line in shown
    assert frames[-1] in shown


def test_the_traceback_comes_with_debug(buggy: Any) -> None:
    err = buggy.command("--debug", *RUN).err
    assert "Traceback" in err
    assert "return 1 / (values.size - 256)" in err
    assert "ZeroDivisionError: division by zero" in err


def test_outputs_are_off_verified_before_anything_is_told(
    buggy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rram_hil.drivers.simulated_array import SimulatedArray

    calls: list[str] = []
    off = SimulatedArray.safe_off

    def counted(self: SimulatedArray) -> None:
        calls.append("off")
        off(self)

    monkeypatch.setattr(SimulatedArray, "safe_off", counted)
    with pytest.raises(ProtocolError) as caught:
        run_recipe("recipe.toml", "bench.toml", "r.h5")
    error = caught.value
    assert calls
    assert error.outputs_off
    assert (error.step, error.step_name, error.protocol) == (2, "own", "./mine.py:Mine")
    assert (error.kind, error.frames[-1]) == ("ZeroDivisionError", "mine.py:10 in ratio")
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_plan_tells_the_bug_in_one_line(buggy: Any) -> None:
    said = buggy.command("plan", "recipe.toml", "--bench", "bench.toml")
    assert said.status == 2
    assert said.err.splitlines()[-1] == (
        f"rram-hil: step 2 (own): protocol ./mine.py:Mine: {DIVISION} (mine.py:10 in ratio)"
    )


def test_once_the_bug_is_gone_the_run_goes_on(buggy: Any) -> None:
    assert buggy.command(*RUN).status == 2
    buggy.write("mine.py", MINE.replace("values.size - 256", "values.size"))
    said = buggy.command(*RUN, "--resume")
    assert said.status == 0, said.err
    with read_run(Path("r.h5")) as run:
        assert run.status == "complete"


def test_a_bug_of_a_driver_is_kept_with_its_frames_and_raised_as_it_is(
    buggy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: SimulatedChip, *arguments: Any) -> Any:
        raise IndexError("no such row")

    monkeypatch.setattr(SimulatedChip, "execute", broken)
    with pytest.raises(IndexError):
        run_recipe("recipe.toml", "bench.toml", "r.h5")
    journal = read_journal(buggy.folder / "r.h5.journal")
    kept = next(f.text for f in journal if isinstance(f, Note) and f.event == "error")
    assert kept.startswith("IndexError: no such row; last frames: ")
    assert kept.endswith(" in broken")


def test_a_bug_of_a_driver_is_one_line_that_says_where_and_what_of_the_outputs(
    buggy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rram_hil.drivers.simulated_array import SimulatedArray

    def broken(self: Any, *arguments: Any) -> Any:
        raise IndexError("no such row")

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedChip, "execute", broken)
        said = buggy.command(*RUN)
        again = buggy.command("--debug", *RUN, "--resume")
        patched.setattr(SimulatedArray, "safe_off", broken)
        unsafe = buggy.command(*RUN, "--resume")
    assert said.status == 2
    assert "Traceback" not in said.err
    line = said.err.splitlines()[-1]
    assert line.startswith("rram-hil: IndexError: no such row (test_protocol_bugs.py:")
    assert " in broken); outputs are off, verified; once it is mended, --resume goes on" in line
    assert "Traceback" in again.err
    assert unsafe.status == 2
    line = unsafe.err.splitlines()[-1]
    assert line.startswith("rram-hil: IndexError: no such row (test_protocol_bugs.py:")
    assert "OUTPUTS COULD NOT BE VERIFIED AS OFF (IndexError: no such row" in line
    buggy.write("mine.py", MINE.replace("values.size - 256", "values.size"))
    assert buggy.command(*RUN, "--resume").status == 0


def test_a_computation_that_gives_no_arrays_is_told_too(buggy: Any) -> None:
    buggy.write("recipe.toml", RECIPE.format(place="computation"))
    buggy.write("mine.py", MINE.replace('{"ratio": ratio(result.last_s)}', "None"))
    said = buggy.command(*RUN)
    assert said.status == 2
    assert "protocol ./mine.py:Mine: AttributeError: 'NoneType'" in said.err.splitlines()[-1]
