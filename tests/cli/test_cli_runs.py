"""`rram-hil runs`: what it lists, labels and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import storage_scenarios as scenarios
from run_files import PULSES, copy_run, write_run

from rram_hil import Catalog
from rram_hil.storage.frames import Resume, Saved, StepStart
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of

if TYPE_CHECKING:
    from conftest import Workplace


@pytest.fixture
def ids(here: Workplace) -> dict[str, str]:
    """Three runs of two chips in the folder, and one file that is none: run id by title."""
    first = write_run(here.folder / "map.h5", run="map", started_utc="2026-03-01T10:00:00Z")
    forming = {"run": "form", "started_utc": "2026-01-05T08:30:00Z", "chip_id": "W2"}
    copy_run(first, here.folder / "form.h5", protocols="forming 1, read-map 1", **forming)
    failing = {"run": "try\x1b[31m again", "started_utc": "2026-02-01T00:00:00Z"}
    copy_run(first, here.folder / "late.h5", status="error", **failing)
    return {entry.title: entry.run_id for entry in Catalog(here.folder)}


def test_runs_are_listed_newest_first(here: Workplace, ids: dict[str, str]) -> None:
    said = here.command("runs")
    assert said.status == 0
    lines = [line.split() for line in said.out.splitlines() if line.strip()]
    assert lines[0] == [
        "run",
        "began",
        "(UTC)",
        "chip",
        "title",
        "file",
        "status",
        "took",
        "tags",
    ]
    rows = [line for line in lines if line[0] in {run[:6] for run in ids.values()}]
    assert [row[0] for row in rows] == [ids[t][:6] for t in ("map", "try\x1b[31m again", "form")]
    assert rows[0][1:6] == ["2026-03-01", "10:00", "T1", "map", "map.h5"]
    assert "\x1b" not in said.out
    assert "\\x1b[31m" in said.out


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        (["--chip", "W2"], ["form"]),
        (["--since", "2026-02-15"], ["map"]),
        (["--protocol", "forming"], ["form"]),
        (["--status", "failed"], ["try\x1b[31m again"]),
        (["--status", "complete"], ["map", "form"]),
        (["--tag", "none"], []),
        (["."], ["map", "try\x1b[31m again", "form"]),
    ],
)
def test_options_choose_and_json_has_every_field(
    here: Workplace, ids: dict[str, str], options: list[str], titles: list[str]
) -> None:
    said = here.command("runs", *options, "--json")
    listed = json.loads(said.out)
    assert [run["title"] for run in listed] == titles
    for run in listed:
        assert (run["run_id"], run["pulses"]) == (ids[run["title"]], PULSES)
        assert Path(run["path"]).exists()


def test_tags_notes_and_exclusions(here: Workplace, ids: dict[str, str]) -> None:
    key = ids["map"][:7]
    assert "figure 3, good" in here.command("runs", "tag", key, "good", "figure 3").out
    assert "tags  good\n" in here.command("runs", "tag", "--remove", key, "figure 3").out
    here.command("runs", "note", "map.h5", "the probe\nslipped")
    said = here.command("runs", "--tag", "good").out
    assert f"{ids['map'][:6]}  the probe slipped" in said
    assert "only with --all" in here.command("runs", "exclude", key).out
    assert ids["map"][:6] not in here.command("runs").out
    assert ids["map"][:6] in here.command("runs", "--all").out
    here.command("runs", "include", key)
    assert ids["map"][:6] in here.command("runs").out
    elsewhere = here.folder / "elsewhere"
    elsewhere.mkdir()
    (here.folder / "map.h5").rename(elsewhere / "map.h5")
    assert "\n  tags  good" in here.command("runs", "include", key, "--in", "elsewhere").out


def test_what_is_damaged_stands_below_the_table(here: Workplace, ids: dict[str, str]) -> None:
    (here.folder / "cut.h5").write_bytes((here.folder / "map.h5").read_bytes()[:1000])
    said = here.command("runs")
    assert said.status == 0
    assert "Damaged\n  cut.h5: not a run file, or a damaged one" in said.out
    assert ids["map"][:6] in said.out


def test_nothing_to_list_is_said(here: Workplace) -> None:
    assert here.command("runs").out == "There is no run file.\n"
    write_run(here.folder / "map.h5")
    assert here.command("runs", "--chip", "W9").out == "No run fits, of 1.\n"
    meant = here.command("runs", "--protocol", "raed-map").out
    assert meant == "No run fits, of 1; did you mean read-map?\n"


def test_the_id_that_is_listed_opens_the_run(here: Workplace, ids: dict[str, str]) -> None:
    key = ids["form"][:6]
    assert here.command("show", key).out == here.command("show", "form.h5").out
    assert here.command("show", key, "--json").out == here.command("show", "form.h5", "--json").out
    assert here.command("export", key, "--npz", "form.npz").status == 0
    assert (here.folder / "form.npz").exists()
    assert "no run id, beginning of one" in here.refused("show", "ffffff")
    assert "nowhere.h5" in here.refused("show", "nowhere.h5")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--since", "soon"], "since 'soon': must be a date (2026-11-01), a time"),
        (["--status", "complet"], "did you mean complete?"),
        (["nowhere"], "nowhere: there is no such folder"),
        (["map.h5"], "map.h5: a file, not a folder"),
        (["tag", "ffffffffffffffffffff", "x"], "no run id, beginning of one, or run file in ."),
        (["tag", "map.h5", "a,b"], "tag 'a,b': must be words without commas"),
        (["tag", "--remove", "map.h5", "a"], "tag 'a': the run has it not; it has none"),
        (["note", "bench.toml", "x"], "'bench.toml': no run id, beginning of one, or run file"),
        (["exclude", "x", "--in", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_bad_input_is_one_line(
    here: Workplace, ids: dict[str, str], arguments: list[str], line: str
) -> None:
    assert line in here.refused("runs", *arguments)


def test_help_tells_every_command(here: Workplace) -> None:
    said = here.command("runs", "--help").out
    assert all(name in said for name in ("list", "tag", "note", "exclude", "include"))
    assert "--since" in here.command("runs", "list", "--help").out


def test_a_number_that_is_none_is_shown_as_a_line(here: Workplace) -> None:
    path = here.folder / "run.h5"
    with Journal.create(journal_of(path), scenarios.header()) as journal:
        journal.append(StepStart(1, "map", "read-map", "1", 0.0))
        for name, unit in (("median", "S"), ("spread", "")):
            journal.append(Saved(1, name, np.array(np.nan), (), unit, {}, 1.0))
        journal.append(Resume("2026-01-02T03:04:05Z", scenarios.BOARD))
    shown = [line.split() for line in here.command("show", "run.h5").out.splitlines()]
    assert ["1", "map", "median", "-"] in shown
    assert ["1", "map", "spread", "-"] in shown
    assert any(line[-3:] == ["resumed", "1", "time"] for line in shown)
