"""docs/catalogue.md does what it says: its commands run and print its table, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from run_files import copy_run, write_run

from rram_hil.cli import main

TEXT = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of the page in its folder `data`."""
    data = tmp_path / "data"
    data.mkdir()
    first = write_run(data / "first.h5")
    given = [
        ("map after a week", "W3-D7", "2026-03-01T10:00", "complete", "read-map"),
        ("forming", "W2-D1", "2026-01-05T08:30", "complete", "forming"),
        ("weights", "W3-D7", "2026-03-02T14:10", "error", "one-shot"),
    ]
    for title, chip, began, status, protocol in given:
        copy_run(
            first,
            data / f"{protocol}.h5",
            run=title,
            chip_id=chip,
            started_utc=f"{began}:00Z",
            ended_utc=f"{began}:48Z",
            status=status,
            protocols=f"{protocol} 1",
        )
    first.unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def command(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line.removeprefix("$ rram-hil ")))
    assert not ended.value.code, line


def test_the_page_does_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, labelled = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    first, _, table = listed.partition("\n")
    command(first)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == table.splitlines()
    for line in labelled.splitlines():
        command(line)
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    exec(compile(code, "docs/catalogue.md", "exec"), {"__name__": "example"})
    said = capsys.readouterr().out
    assert "map after a week complete 48" in said
    assert "weights" not in said.split("listed only with --all")[1]


def test_the_page_names_every_status() -> None:
    from rram_hil.catalogue.entry import STATES

    assert all(f"`{state}`" in TEXT for state in STATES)
