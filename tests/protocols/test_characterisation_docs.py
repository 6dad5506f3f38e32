"""The recipe of docs/characterisation.md runs; what it leaves can be shown and drawn."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chain_recipes import ARRAY, backend_text
from rich.console import Console

from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.cli import main
from rram_hil.terminal.console import Output, outcome_text
from rram_hil.terminal.show import show_run

TEXT = (Path(__file__).parents[2] / "docs" / "characterisation.md").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Counts elements, and sees that every SVG is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.open = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.open += tag == "svg"

    def handle_endtag(self, tag: str) -> None:
        self.open -= tag == "svg"


@pytest.mark.long
def test_the_recipe_of_the_page_runs_and_is_drawn(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example
    (tmp_path / "recipe.toml").write_text(example[1], encoding="utf-8")
    bench = backend_text(ARRAY, "1T1R", 4).replace("gate_over_v = 4.0", "gate_over_v = 4.2")
    (tmp_path / "bench.toml").write_text(bench, encoding="utf-8")
    outcome = run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5")
    names = [name for name, _ in outcome.steps]
    assert names == re.findall(r'protocol = "(.*?)"', example[1])
    for name, summary in outcome.steps:
        assert " ± " in outcome_text(summary), name
    console = Console(width=120, record=True)
    show_run(outcome.run_file, Output(console))
    shown = console.export_text()
    assert "± half width of the 95 % interval" in shown
    assert re.search(r"forming +threshold_v +\d\.\d+ ± 0\.\d+ V", shown)
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as end:
        main(["report", str(outcome.run_file), "--out", str(page)])
    assert end.value.code == 0
    html = re.sub(r'"data:[^"]*"', '""', page.read_text(encoding="utf-8"))
    tags = Tags(html)
    assert tags.open == 0
    assert tags.count["svg"] == tags.count["figure"] >= 2 * len(names)
    assert html.count("± half width of the 95 % interval") == len(names)
    assert "NaN" not in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    for name in names:
        assert f"<h2>{names.index(name) + 1} {name}</h2>" in html


def test_every_protocol_of_the_recipe_has_a_section() -> None:
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    for name in re.findall(r'protocol = "(.*?)"', TEXT):
        assert re.search(rf"^## .*\b{name}\b", prose, re.MULTILINE), name


def test_a_single_plot_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text('[[step]]\nprotocol = "look"\n', encoding="utf-8")
    (tmp_path / "bench.toml").write_text(backend_text(ARRAY, "1T1R", 4), encoding="utf-8")
    outcome = run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5")
    with pytest.raises(SystemExit) as end:
        main(["report", str(outcome.run_file), "--out", str(tmp_path / "page.html")])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Report of 1 plot: ")


def test_a_run_without_plots_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(
        '[[step]]\nprotocol = "wait"\nseconds = 1.0\n', encoding="utf-8"
    )
    (tmp_path / "bench.toml").write_text(backend_text(ARRAY, "1T1R", 2), encoding="utf-8")
    outcome = run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", tmp_path / "run.h5")
    with pytest.raises(SystemExit) as end:
        main(["report", str(outcome.run_file), "--out", str(tmp_path / "page.html")])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Report of 0 plots: ")
    assert "1 wait" in (tmp_path / "page.html").read_text(encoding="utf-8")
