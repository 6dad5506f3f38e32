"""docs/calibration.md does what it says: its walk through is run, its keys are valid, its
half-widths are those of the study.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from calibration_coverage import STATED

from rram_hil.bench.plugins import protocol_class
from rram_hil.cli import main
from rram_hil.corrections.calibration_file import parse
from rram_hil.storage.run_reader import read_run

TEXT = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
TOML = [text for kind, text in BLOCKS if kind == "toml"]


def run(command: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    return int(ended.value.code or 0)


@pytest.mark.long
def test_the_walk_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bench, keys, section, recipe = TOML[:4]
    Path("bench.toml").write_text(bench, encoding="utf-8")
    Path("lines-keys.toml").write_text(keys, encoding="utf-8")
    Path("recipe.toml").write_text(recipe, encoding="utf-8")
    (command,) = (text.strip() for kind, text in BLOCKS if kind == "sh")
    assert run(command.removeprefix("rram-hil ")) == 0
    printed = capsys.readouterr().out
    for line in next(text for kind, text in BLOCKS if kind == "").strip().splitlines():
        assert line in printed
    assert Path("lines.h5").exists()
    assert run("run recipe.toml --bench bench.toml -o again.h5") == 0
    assert (
        parse(Path("lines-again.toml").read_text()).values
        == parse(Path("lines.toml").read_text()).values
    )
    Path("bench.toml").write_text(f"{bench}\n{section}", encoding="utf-8")
    Path("read.toml").write_text('[[step]]\nprotocol = "read-map"\n', encoding="utf-8")
    assert run("run read.toml --bench bench.toml -o read.h5") == 0
    with read_run("read.h5") as done:
        g = done.map("conductance").values[0, 0]
        assert list(done.calibrations) == ["lines.toml"]
    # What is left is the board's own: 0.2 V is 0.1 % off its converter's steps, and the ADC's step.
    assert 1 / g[0, 31] == pytest.approx(1000, rel=5e-3)
    assert run(command.removeprefix("rram-hil ")) == 2
    assert "lines.toml exists; add --force" in capsys.readouterr().err


def test_the_file_of_the_page_is_one() -> None:
    file = parse(next(text for text in TOML if text.startswith("kind")))
    assert file.instrument.model == "2450"


def test_keys_of_the_page_are_valid() -> None:
    sections = TEXT.split("\n### ")[1:]
    seen = []
    for section in sections:
        name = section.split("\n", 1)[0]
        for example in re.findall(r"```toml\n(.*?)```", section, re.DOTALL):
            protocol_class(name).model_validate(tomllib.loads(example))
            seen.append(name)
    assert seen == ["source-meter", "leads", "board-converters", "pulse-arrival"]


@pytest.mark.parametrize("study", STATED)
def test_stated_half_widths_are_those_that_are_tested(study: str) -> None:
    section = next(s for s in TEXT.split("\n### ")[1:] if s.startswith(study.split(" ")[0] + "\n"))
    for name, stated in STATED[study].items():
        rows = [row for row in section.splitlines() if row.startswith("|") and f"`{name}`" in row]
        figures = [_figure(row.split("|")[2]) for row in rows]
        assert stated in [pytest.approx(f) for f in figures], (name, figures)


def _figure(cell: str) -> float:
    value, unit = re.match(r"\s*([\d.e-]+)\s*(uV|mV)?", cell).groups()  # type: ignore[union-attr]
    return float(value) * {"uV": 1e-6, "mV": 1e-3}.get(unit, 1.0)
