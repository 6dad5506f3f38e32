"""`--record FILE`: a session over the links is kept and can be played back without the hardware."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from rram_hil.bench.bench import Bench
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.errors import BenchError
from rram_hil.storage.run_reader import read_run
from rram_hil.wire.recording import Playback, read_traffic

RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5", "--record", "session.jsonl")


@pytest.fixture
def board(here: Any) -> Any:
    """The workplace with a simulated board in place of the direct driver, 4 x 4 cells."""
    text = (here.folder / "bench.toml").read_text().replace("simulated-array", "test-chip-board")
    here.write("bench.toml", re.sub(r"(rows|columns) = 16", r"\1 = 4", text))
    return here


def real_bench(here: Any, port: str) -> str:
    """The same bench without its simulation, on the recorded port, with a ledger of its own."""
    text = (here.folder / "bench.toml").read_text().split("[simulation]")[0]
    text = text.replace('cell = "1T1R"', 'cell = "1T1R"\nledger = "other.npy"')
    return str(
        here.write(
            "real.toml", text.replace('"test-chip-board"', f'"test-chip-board"\nport = "{port}"')
        )
    )


def test_a_recorded_run_gives_the_same_run_file_when_played_back(board: Any) -> None:
    said = board.command(*RUN)
    assert said.status == 0, said.err
    _, events = read_traffic(board.folder / "session.jsonl")
    assert f"Recorded {len(events)} events of the links: session.jsonl" in said.out
    links = {event.link for event in events}
    assert len(links) == 1
    playback = Playback("session.jsonl")
    run_recipe("recipe.toml", real_bench(board, links.pop()), "played.h5", traffic=playback)
    assert playback.left() == 0
    with read_run("r.h5") as one, read_run("played.h5") as other:
        assert one.map_names
        for name in one.map_names:
            np.testing.assert_array_equal(one.map(name).values, other.map(name).values)
        for name in ("operations", "cells"):
            before, after = one.table(name), other.table(name)
            assert len(before) > 3
            for column in before.keys() - {"wall_s"}:
                np.testing.assert_array_equal(before[column], after[column], err_msg=column)


def test_check_records_too(board: Any) -> None:
    for options, file in ((["--no-touch"], "look.jsonl"), ([], "check.jsonl")):
        said = board.command("check", "bench.toml", *options, "--record", file)
        assert said.status == 0, said.err
        assert "events of the links" in said.out
        _, events = read_traffic(board.folder / file)
        assert events[0].do == "open"
        assert any(e.do == "receive" and e.data for e in events)
        playback = Playback(board.folder / file)
        if options:
            with Bench.open(
                real_bench(board, events[0].link), arm=False, traffic=playback
            ) as bench:
                assert bench.identity.chip == "c1"
            assert playback.left() == 0


@pytest.mark.parametrize("command", [RUN, ("check", "bench.toml", "--record", "session.jsonl")])
def test_an_existing_recording_is_never_overwritten(board: Any, command: tuple[str, ...]) -> None:
    board.write("session.jsonl", "precious")
    line = board.refused(*command)
    assert "session.jsonl exists; a recording does not overwrite" in line
    assert (board.folder / "session.jsonl").read_text() == "precious"
    assert "no_folder" in board.refused(*command[:-1], "no_folder/x.jsonl")


def test_a_refused_run_leaves_no_recording(board: Any) -> None:
    board.write("r.h5", "a run file")
    assert "r.h5 exists" in board.refused(*RUN)
    board.write("bad.toml", "nothing")
    assert "bad.toml" in board.refused("check", "bad.toml", "--record", "session.jsonl")


def test_what_goes_wrong_is_in_the_recording(board: Any) -> None:
    real = real_bench(board, "socket://127.0.0.1:9")
    said = board.command("check", real, "--record", "session.jsonl")
    assert said.status == 2
    _, events = read_traffic(board.folder / "session.jsonl")
    assert {e.do for e in events} == {"error", "close"}
    with pytest.raises(BenchError, match="cannot be opened"):
        Bench.open(real, traffic=Playback("session.jsonl"))
