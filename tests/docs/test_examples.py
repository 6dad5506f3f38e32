"""The examples of README and docs run: every block of code is run by this file or by the one named
here, or carries a mark that says why not; the marks are counted.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pages import MARKS, REASONS, Block, Reader, blocks_of, fits
from small_bench import bench_toml

from rram_hil.bench.bench_file import section_model
from rram_hil.bench.plugins import protocol_class
from rram_hil.hardware.instrument import instrument_class
from rram_hil.simulation.model import DeviceModel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *TUTORIALS]
CODE = ("python", "sh", "console", "toml")

ELSEWHERE = {
    "adding-a-board.md": "drivers/test_adding_a_board.py",
    "adding-a-calibration.md": "engine/test_adding_plugins.py",
    "adding-a-driver.md": "drivers/test_adding_a_driver.py",
    "adding-a-protocol.md": "engine/test_adding_plugins.py",
    "calibration.md": "calibration/test_calibration_docs.py",
    "catalogue.md": "catalogue/test_catalogue_docs.py",
    "characterisation.md": "protocols/test_characterisation_docs.py",
    "networks.md": "networks/test_networks_docs.py",
    "recipes.md": "bench/test_recipe_docs.py",
    "report.md": "report/test_report_docs.py",
    "run-file.md": "storage/test_run_file.py",
    "studies.md": "studies/test_studies.py",
    "testing-your-lab.md": "test_pytest_plugin.py",
}
"""Pages whose examples a test of their own runs."""
UNMARKED = {"paper.md": "hours"}
"""Pages all of whose examples have the same mark."""
EXCEPTIONS = {"hardware": 6, "hours": 3, "install": 4, "torch": 3}
"""How many blocks have each mark: who adds one says so here."""

BENCH = bench_toml(
    "example", 64, 64, 2000, driver='name = "test-chip-board"', simulation="seed = 1"
)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(page: Path) -> list[Block]:
    return [b for b in blocks_of(page.read_text(encoding="utf-8")) if b.language in CODE]


def test_every_example_is_run_or_says_why_not() -> None:
    marks: Counter[str] = Counter()
    for page in PAGES:
        found = examples(page)
        marks.update(b.mark or UNMARKED.get(page.name, "") for b in found)
        assert {b.mark for b in found} <= {"", *MARKS}, named(page)
        if page.name in ELSEWHERE:
            text = (ROOT / "tests" / ELSEWHERE[page.name]).read_text(encoding="utf-8")
            assert page.name in text, f"{ELSEWHERE[page.name]} does not run {named(page)}"
            continue
        for block in found:
            is_run = page in RUN or block.mark in REASONS or page.name in UNMARKED
            assert is_run, f"{named(page)}, line {block.line}: no test runs it"
    del marks[""]
    assert marks == EXCEPTIONS


def test_no_comment_that_means_a_mark_is_overlooked() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- example") == sum(bool(b.mark) for b in blocks_of(text)), named(page)


READ = [
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("coded-reads", "device-model", "instruments", "project")),
]
LONG_READ = ("instruments", "project")
"""Pages that take seconds."""
VALID = [DOCS / "compensation.md", DOCS / "programming.md"]
"""Pages with parts of files only."""
RUN = {*READ, *VALID, *TUTORIALS}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader in an empty folder; what a page starts in the background ends with the test."""
    with contextlib.closing(Reader(tmp_path)) as made:
        yield made


def read(reader: Reader, page: Path) -> None:
    needs_torch = any(block.mark == "torch" for block in examples(page))
    if needs_torch and not (find_spec("torch") and find_spec("sklearn")):
        pytest.skip("this page needs the extra [demo]")
    reader.read(page)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", TUTORIALS, ids=named)
def test_a_tutorial_runs_from_an_empty_folder(page: Path, reader: Reader) -> None:
    read(reader, page)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.long] * (p.stem in LONG_READ)) for p in READ],
    ids=named,
)
def test_a_page_runs(page: Path, reader: Reader) -> None:
    """Beside the examples of the repository and a bench file of a simulated board."""
    shutil.copytree(ROOT / "examples", reader.folder / "examples")
    (reader.folder / "bench.toml").write_text(BENCH, encoding="utf-8")
    read(reader, page)


@pytest.mark.parametrize("page", [*READ, *VALID], ids=named)
def test_parts_of_files_have_valid_keys(page: Path, tmp_path: Path) -> None:
    for block in examples(page):
        if block.language == "toml" and not block.title:
            check_keys(tomllib.loads(block.code), block.code, tmp_path)


def check_keys(tables: dict[str, Any], text: str, folder: Path) -> None:
    """Steps of a recipe, instruments and the simulation of a bench, or a device model."""
    for step in tables.get("step", []):
        protocol_class(step.pop("protocol")).model_validate(
            {key: value for key, value in step.items() if key != "name"}
        )
    for settings in tables.get("driver", {}).get("instruments", {}).values():
        instrument_class(settings["kind"]).Config.model_validate(settings)
    if "simulation" in tables:
        section_model("simulation").model_validate(tables["simulation"])
    if "base" in tables:
        (folder / "model.toml").write_text(text, encoding="utf-8")
        DeviceModel.load("model.toml", folder)


def test_what_is_printed_is_compared_line_by_line() -> None:
    assert fits("a ... c\n...\nlast\n", "a b c\nx\ny\nlast   \n")
    assert fits("...\nlast\n", "last\n")
    assert not fits("a\n", "a\nb\n")
    assert not fits("a ... c\n", "a b\nc\n")
    assert not fits("a.c\n", "abc\n")


def test_a_page_that_is_wrong_is_noticed(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\ntwo\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape("page.md, line 1: echo one: prints")):
        reader.read(page)
    page.write_text("Text.\n\n```python\nraise SystemExit(3)\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape("page.md, line 3: exit status 3")):
        reader.read(page)
    page.write_text("<!-- example: hours -->\n```sh\nfalse\n```\n", encoding="utf-8")
    assert reader.read(page) == 0
