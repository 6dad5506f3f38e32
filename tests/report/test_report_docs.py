"""docs/report.md does what it says: its commands run and print what it shows, its Python runs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from reported_runs import BENCH, FORMING, SECTIONS, write_run_of
from run_files import copy_run

from rram_hil.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
RECIPE = f"""{FORMING}
[[step]]
protocol = "array-statistics"
set = {{ bl_v = 2.0, wl_v = 2.6, width_s = 1e-7 }}
reset = {{ sl_v = 2.2, wl_v = 3.5, width_s = 2e-7 }}

[[step]]
protocol = "endurance"
cells = {{ rows = [0, 0] }}
cycles = 20
set = {{ bl_v = 2.0, wl_v = 2.6, width_s = 1e-7 }}
reset = {{ sl_v = 2.2, wl_v = 3.5, width_s = 2e-7 }}

[[step]]
protocol = "read-map"
"""
"""Ten plots, and two maps of the conductance at least."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page's commands are given: two runs of one chip, more in the folder `data`."""
    bench = BENCH.replace('id = "c1"', 'id = "W3-D7"\nlot = "W3"\ndie = "4,2"')
    run = write_run_of(tmp_path, RECIPE, bench)
    copy_run(run, tmp_path / "again.h5", started_utc="2026-03-01T10:00:00Z", seed=2)
    data = tmp_path / "data"
    data.mkdir()
    shutil.copyfile(run, data / "first.h5")
    for month in (4, 5):
        copy_run(run, data / f"{month}.h5", started_utc=f"2026-0{month}-01T10:00:00Z")
    copy_run(run, data / "other.h5", chip_id="W3-D8", die="5,2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("RRAM_HIL_CATALOGUE", str(tmp_path / "catalogue"))
    return tmp_path


@pytest.mark.long
def test_the_page_does_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for part in block.split("$ rram-hil ")[1:]:
            line, _, said = part.partition("\n")
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line))
            assert not ended.value.code, capsys.readouterr().err
            assert capsys.readouterr().out == said, line
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/report.md", "exec"), {"__name__": "example"})
    assert (folder / "figure.png").stat().st_size > 1000
    life = (folder / "chip-W3-D7.html").read_text(encoding="utf-8")
    assert "Yield over time" in life
    assert "Budget used" in life
    assert "Lot W3" in (folder / "chips.html").read_text(encoding="utf-8")


def test_the_page_names_every_protocol_with_a_section() -> None:
    table = TEXT.partition("## What each protocol shows")[2].partition("\n\nOnly")[0]
    named = re.findall(r"[a-z][a-z-]+", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert set(SECTIONS) <= set(named)


def test_every_picture_of_the_page_is_there_and_small() -> None:
    pictures = re.findall(r"\]\((images/.*?)\)", TEXT)
    assert len(pictures) == 5
    for name in pictures:
        path = Path(__file__).parents[2] / "docs" / name
        assert path.stat().st_size <= 200_000, name
