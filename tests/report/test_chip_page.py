"""The life of a chip and the map of its dies: what they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reported_runs import BENCH, FORMING, Page, write_run_of
from run_files import copy_run

from rram_hil.catalogue.catalog import Catalog
from rram_hil.cli import main
from rram_hil.report.chip_page import Chip, chips_of, die_place, yield_of
from rram_hil.storage.run_reader import read_run
from rram_hil.storage.run_state import journal_of

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
    ],
)
def test_the_name_of_a_die_tells_where_it_lies(die: str, place: tuple[int, int] | None) -> None:
    assert die_place(die) == place
