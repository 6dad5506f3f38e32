"""Which bench a command works on where none is named on its line, and who agrees to a real one."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest


def real_bench(here: Any) -> str:
    text = (here.folder / "bench.toml").read_text(encoding="utf-8")
    head, _, _ = text.partition("[simulation]")
    place: str = here.write(
        "real.toml",
        head.replace('name = "simulated-array"', 'name = "test-chip-board"\nport = "/dev/nowhere"'),
    )
    return place


def test_without_any_name_the_three_ways_are_told(here: Any) -> None:
    for command in (("run", "recipe.toml"), ("plan", "recipe.toml"), ("check",), ("chip", "reset")):
        told = here.refused(*command)
        assert "give --bench FILE, set RRAM_HIL_BENCH, or write bench =" in told


def test_the_environment_names_a_bench_and_it_is_said(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRAM_HIL_BENCH", "bench.toml")
    said = here.command("run", "recipe.toml")
    assert said.status == 0, said
    assert "Bench bench.toml, as RRAM_HIL_BENCH says." in said.err


def test_a_project_file_above_names_a_bench(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here.write("rram-hil.toml", 'bench = "bench.toml"\n')
    (here.folder / "runs/today").mkdir(parents=True)
    monkeypatch.chdir(here.folder / "runs/today")
    said = here.command("plan", "../../recipe.toml")
    assert said.status == 0, said
    assert f"{here.folder}{os.sep}rram-hil.toml says" in said.err.replace("\n", "")


def test_the_command_comes_before_the_environment_and_that_before_the_project(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write("rram-hil.toml", 'bench = "none.toml"\n')
    assert "rram-hil.toml" in here.refused("check")
    monkeypatch.setenv("RRAM_HIL_BENCH", "missing.toml")
    assert "named by RRAM_HIL_BENCH" in here.refused("check")
    assert here.command("check", "bench.toml").status == 0


@pytest.mark.parametrize(
    ("text", "told"), [("banch = 1", "banch"), ("bench = 1", "bench"), ("[", "rram-hil.toml")]
)
def test_a_project_file_that_is_wrong_is_refused_in_one_line(
    here: Any, text: str, told: str
) -> None:
    here.write("rram-hil.toml", text)
    assert told in here.refused("check")


def test_a_real_bench_of_the_environment_needs_a_word(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = real_bench(here)
    monkeypatch.setenv("RRAM_HIL_BENCH", place)
    for command in (("run", "recipe.toml"), ("check",)):
        assert "a real bench that RRAM_HIL_BENCH names: add --yes" in here.refused(*command)
        # Agreed, named, or not touched: it is tried, and there is no such port.
        assert "/dev/nowhere" in here.refused(*command, "--yes")
    assert "/dev/nowhere" in here.refused("check", "--no-touch")
    assert "/dev/nowhere" in here.refused("run", "recipe.toml", "--bench", place)


@pytest.mark.parametrize(("answer", "told"), [("n", "nothing was done"), ("y", "/dev/nowhere")])
def test_at_a_terminal_a_real_bench_of_the_environment_is_asked_about(
    here: Any, monkeypatch: pytest.MonkeyPatch, mocker: Any, answer: str, told: str
) -> None:
    monkeypatch.setenv("RRAM_HIL_BENCH", real_bench(here))
    mocker.patch("sys.stdin.isatty", return_value=True, create=True)
    mocker.patch("rram_hil.terminal.benches.typer.confirm", return_value=answer == "y")
    assert told in here.refused("run", "recipe.toml")


def test_a_simulated_chip_begins_anew_and_its_earlier_life_is_kept(here: Any) -> None:
    assert "was never used" in here.command("chip", "reset", "-b", "bench.toml").out
    for chapter in (1, 2):
        assert here.command("run", "recipe.toml", "-b", "bench.toml").status == 0
        before = json.loads(here.command("ledger", "show", "-b", "bench.toml", "--json").out)
        assert before["pulses"] > 0
        said = here.command("chip", "reset", "-b", "bench.toml")
        assert f"its chapter {chapter} is kept" in said.out
        for kind in ("state", "ledger.npy"):
            assert not (here.folder / f"c1.{kind}").exists()
            assert (here.folder / f"c1.{kind}.chapter-{chapter}").exists()
        for left in ("recipe.h5", "recipe.h5.journal"):
            (here.folder / left).rename(here.folder / f"{chapter}-{left}")
    assert "resume" in here.refused("run", "recipe.toml", "-b", "bench.toml", "--resume")


def test_a_real_chip_and_one_in_use_are_not_reset(here: Any) -> None:
    told = here.refused("chip", "reset", "-b", real_bench(here))
    assert "c1 is a real one, whose cells keep what they went through" in told
    from rram_hil import Bench

    with Bench.open("bench.toml"):
        assert "in use" in here.refused("chip", "reset", "-b", "bench.toml")
        assert (here.folder / "c1.state").exists()


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (("plan", "read.toml", "-b", "bench.toml"), {"steps", "worst_left", "networks"}),
        (("ledger", "show", "-b", "bench.toml"), {"pulses", "limit", "sessions"}),
        (("show", "recipe.h5"), {"state", "attributes", "steps", "maps", "results", "notes"}),
    ],
)
def test_listings_as_json(here: Any, command: tuple[str, ...], keys: set[str]) -> None:
    assert here.command("run", "recipe.toml", "-b", "bench.toml").status == 0
    here.write("read.toml", 'title = "t"\n[[step]]\nprotocol = "read-map"\n')
    said = here.command(*command, "--json")
    assert said.status == 0, said
    assert keys <= set(json.loads(said.out))


def test_every_command_answers_h(here: Any) -> None:
    for command in ((), ("run",), ("runs",), ("runs", "list"), ("calibrate", "leads"), ("chip",)):
        said = here.command(*command, "-h")
        assert (said.status, said.out.split(":")[0]) == (0, "Usage")
