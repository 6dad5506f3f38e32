"""The life of a chip and the map of its dies: what they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import storage_scenarios as scenarios
from reported_runs import BENCH, FORMING, Page, write_run_of
from run_files import ENDED, PULSES, copy_run, frames, write_run

from rram_hil.catalogue.catalog import Catalog
from rram_hil.cli import main
from rram_hil.report.chip_page import Chip, chips_of, die_place, write_dies_page, yield_of
from rram_hil.storage.frames import Resume
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_state import journal_of
from rram_hil.storage.run_writer import write_run_file

CHECKED = f"""{FORMING}
[[step]]
protocol = "array-statistics"
set = {{ bl_v = 2.0, wl_v = 2.6, width_s = 1e-7 }}
reset = {{ sl_v = 2.2, wl_v = 3.5, width_s = 2e-7 }}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one chip, the later one first by name, a copy of one, and a damaged file."""
    folder = tmp_path_factory.mktemp("runs")
    bench = BENCH.replace('id = "c1"', 'id = "W3-D7"\nlot = "W3"\ndie = "4,2"')
    first = write_run_of(folder, FORMING, bench, "z.h5")
    last = write_run_of(folder, CHECKED, bench, "late.h5")
    copy_run(last, folder / "y.h5", started_utc="2027-05-01T10:00:00Z")
    copy_run(first, folder / "copy.h5")
    (folder / "damaged.h5").write_bytes(first.read_bytes()[:4000])
    last.unlink()
    journal_of(last).unlink()
    return folder


@pytest.fixture
def chip(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chip:
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path))
    (found,) = chips_of(Catalog(runs).search(chip="W3-D7"))
    return found


def test_a_life_has_every_run_once_oldest_first(chip: Chip) -> None:
    assert [run.entry.path.name for run in chip.runs] in (["z.h5", "y.h5"], ["copy.h5", "y.h5"])
    assert (chip.last("lot"), chip.last("die"), chip.last("budget")) == ("W3", "4,2", "100000")


def test_the_yield_is_counted_from_the_maps(chip: Chip) -> None:
    formed, checked = chip.runs
    with read_run(formed.entry.path) as run:
        good = int(np.isfinite(run.map("forming_gate").values[-1]).sum())
        assert yield_of(run) == (good, 1024, "formed")
    with read_run(checked.entry.path) as run:
        share = float(run.result("array-statistics", "working").values)
    assert checked.what == "working"
    assert checked.share == pytest.approx(share)
    assert chip.latest_yield is checked


def test_pages_of_folders_tell_what_they_leave_out(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path / "catalogue"))
    out = tmp_path / "page.html"
    for more in ((), ("--chip", "W3-D7", "--bench", str(runs / "bench.toml"))):
        with pytest.raises(SystemExit) as ended:
            main(["report", str(runs), "-o", str(out), *more])
        assert not ended.value.code, capsys.readouterr().err
        page = Page(out.read_text(encoding="utf-8"))
        page.assert_alone()
        assert ("Left out: damaged.h5" in page.text) == (more == ())
        assert ("Budget used" in page.text) == bool(more)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(runs), "-o", str(out), "--chip", "W3-D8"])
    assert ended.value.code == 2
    assert "there are: W3-D7" in capsys.readouterr().err


def resumed_run(folder: Path) -> None:
    """A run that was aborted, copied, and gone on with under another name."""
    write_run(folder / "copy.h5", "aborted", journal=True, chip_id="c9")
    journal_of(folder / "copy.h5").rename(journal_of(folder / "main.h5"))
    with Journal.resume(journal_of(folder / "main.h5")) as journal:
        journal.append(Resume(ENDED, scenarios.BOARD))
        for frame in frames("complete")[1:]:
            journal.append(renumbered(frame))
    write_run_file(journal_of(folder / "main.h5"), folder / "main.h5")


def renumbered(frame: Any) -> Any:
    """The same of a second step and operation."""
    changes = {name: 2 for name in ("step", "operation") if hasattr(frame, name)}
    return replace(frame, **changes)


def test_of_copies_of_a_run_the_furthest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path / "catalogue"))
    folder = tmp_path / "runs"
    folder.mkdir()
    resumed_run(folder)
    (chip,) = chips_of(Catalog(folder))
    assert [(run.entry.path.name, run.pulses) for run in chip.runs] == [("main.h5", 2 * PULSES)]
    entry = Catalog(folder).entry(chip.runs[0].entry.run_id)
    assert (entry.path.name, entry.status) == ("main.h5", "complete")


def test_a_damaged_copy_does_not_hide_the_good_one_and_a_chip_without_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path / "catalogue"))
    folder = tmp_path / "runs"
    folder.mkdir()

    def report(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["report", str(folder), "-o", str(tmp_path / "page.html"), *more])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    write_run(folder / "a.h5", journal=True, file=False, chip_id="W-1.x")
    flip_middle(journal_of(folder / "a.h5"))
    for more in ((), ("--chip", "W-1.x")):
        code, said = report(*more)
        assert code == 2, said
        assert "can be read: a.h5: " in said
    write_run(folder / "other.h5", chip_id="W-2")
    assert report()[1].endswith("No run can be read of: W-1.x; the page says why.\n")
    assert "(no run of chip W-1.x can be read)" in (tmp_path / "page.html").read_text("utf-8")
    write_run(folder / "b.h5", chip_id="W-1.x")
    code, said = report("--chip", "W-1.x")
    assert (code, said.split(":")[0]) == (0, "Life of chip W-1.x, 1 run")
    text = Page((tmp_path / "page.html").read_text("utf-8")).text
    assert "Left out: a.h5" in text
    assert "pulses in 1 run " in text


def flip_middle(path: Path) -> None:
    """Turn one bit around in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_chips_that_share_a_die_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path / "catalogue"))
    for name, day in (("a", 3), ("b", 2), ("c", 1)):
        die = "3,4" if name != "c" else "9" * 30 + ",4"
        utc = f"2026-05-0{day}T10:00:00Z"
        run = write_run(tmp_path / f"{name}.h5", chip_id=name, started_utc=utc)
        copy_run(run, tmp_path / f"{name}{name}.h5", lot="L", die=die, started_utc=utc)
        run.unlink()
    write_dies_page(chips_of(Catalog(tmp_path)), tmp_path / "page.html")
    text = Page((tmp_path / "page.html").read_text("utf-8")).text
    assert "Several chips at 3,4: b, a; the map shows a." in text
    assert "names no column and row: c." in text


@pytest.mark.parametrize(
    ("die", "place"),
    [
        ("3,4", (3, 4)),
        ("x3y4", (3, 4)),
        ("X-2 Y5", (-2, 5)),
        ("3-4", (3, 4)),
        ("R4C3", (3, 4)),
        ("row 4 column 3", (3, 4)),
        ("12", None),
        ("", None),
        ("A-B", None),
        ("1,2,3", None),
        ("-99999,4", (-99999, 4)),
        ("99999999999999999999999,4", None),
    ],
)
def test_the_name_of_a_die_tells_where_it_lies(die: str, place: tuple[int, int] | None) -> None:
    assert die_place(die) == place
