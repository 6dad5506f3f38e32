"""A page of any run: what it holds, that its numbers are those of the file, and that nothing in a
run file can act on it.
"""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import storage_scenarios as scenarios
from hypothesis import given
from hypothesis import strategies as st
from reported_runs import (
    BENCH,
    CHARACTERISED,
    FORMING,
    PROGRAMMED,
    SECTIONS,
    Page,
    pages,
    write_run_of,
)
from run_files import copy_run, write_run
from small_bench import PULSES

from rram_hil.array import MAP
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.cli import main
from rram_hil.errors import ConfigError, DataError
from rram_hil.protocols.forming import Forming
from rram_hil.protocols.parts.rounds import Reason
from rram_hil.report.compare import compared_maps, compared_results, differing_settings
from rram_hil.report.maps import MapCells
from rram_hil.report.plot_drawing import POINTS_DRAWN, csv_of, draw
from rram_hil.report.run_maps import map_views, panels_of
from rram_hil.report.section import Axis, Line, Plot, Section, cumulative, histogram
from rram_hil.report.sections import StepView, section_of
from rram_hil.report.step import RunStep, steps_of
from rram_hil.statistics import proportion, wilson
from rram_hil.storage.frames import Saved
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_reader import RunFile, read_run
from rram_hil.storage.run_state import journal_of, newest
from rram_hil.units import count

HOSTILE = "<script>alert(1)</script>\"'&</title>\x1b[2J"
Made = tuple[Path, list[StepView], str]


@pytest.fixture(scope="module")
def characterised(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = write_run_of(tmp_path_factory.mktemp("characterised"), CHARACTERISED)
    return path, *pages(path)


@pytest.fixture(scope="module")
def programmed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("torch")
    path = write_run_of(tmp_path_factory.mktemp("programmed"), PROGRAMMED)
    return path, *pages(path)


@pytest.fixture(scope="module")
def formed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_of(tmp_path_factory.mktemp("formed"), FORMING)


def rows_of(text: str) -> tuple[list[str], dict[str, list[list[float]]]]:
    """Head of a plot's CSV, and the numbers of each line."""
    head, *rows = csv.reader(io.StringIO(text))
    found: dict[str, list[list[float]]] = {}
    for name, *fields in rows:
        found.setdefault(name, []).append([float(f) if f else np.nan for f in fields])
    return head, found


def numbers_of(made: Made, step: str, title: str) -> tuple[list[str], dict[str, list[list[float]]]]:
    """What the page itself holds of a plot: the data behind its link."""
    _, views, page = made
    view = next(v for v in views if v.title.partition(" ")[2] == step)
    numbers = next(n for picture, n in view.pictures if picture.title == title)
    held = re.search(
        rf'download="{re.escape(numbers.name)}" href="data:text/csv;base64,(.*?)"', page
    )
    assert held
    text = base64.b64decode(held[1]).decode()
    assert text == numbers.text
    return rows_of(text)


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "which", ["programmed", pytest.param("characterised", marks=pytest.mark.long)]
)
def test_every_step_has_the_section_of_its_protocol(
    which: str, request: pytest.FixtureRequest
) -> None:
    path, views, page = request.getfixturevalue(which)
    seen = Page(page)
    seen.assert_alone()
    with read_run(path) as run:
        steps = [step.protocol for step in steps_of(run)]
    assert [view.protocol.partition(" ")[0] for view in views] == steps
    for view, protocol in zip(views, steps, strict=True):
        assert view.problem == "", view.title
        assert set(SECTIONS[protocol]) <= {picture.title for picture, _ in view.pictures}
        assert f"<h2>{view.title}</h2>" in page
        for picture, _ in view.pictures:
            assert picture.svg, f"{view.title}: {picture.title} is empty"
    assert seen.tags.count("svg") == seen.tags.count("figure")
    assert not re.search(r"\b[Nn]a[Nn]\b", seen.text)


def test_the_page_says_who_when_what_and_at_what_cost(formed: Path) -> None:
    _, page = pages(formed)
    text = Page(page).text
    with read_run(formed) as run:
        steps, operations = run.table("steps"), run.operations()
    for wanted in (
        "c1: 1 tile of 32 x 32, 1T1R",
        "forming 1",
        "complete",
        f"{int(steps['pulses'].sum()):,}".replace(",", " "),
        f"{int(operations['reads'][0]):,}".replace(",", " "),
        "pristine",
        "virtual clock",
        "No refusals or errors; no operations were cut",
        "None: conductances are raw readings",
        "bl_v = { start_v = 2.4, stop_v = 3.9, step_v = 0.1 }",
        "pulses_per_cell = 100000",
    ):
        assert wanted in text, wanted


def test_the_formed_share_is_that_of_the_map(formed: Path) -> None:
    with read_run(formed) as run:
        (step,) = steps_of(run)
        voltage = run.map("forming_voltage").values[-1]
        section = Forming.section(step)
    assert section is not None
    (line, *_) = section.plots[0].lines
    for at, share in zip(line.x[1:], line.y[1:], strict=True):
        assert share == pytest.approx(float(np.mean(voltage <= at)))


def test_cells_that_did_not_form_are_named_in_one_line(tmp_path: Path) -> None:
    ramp = "bl_v = { start_v = 2.4, stop_v = 3.1, step_v = 0.1 }\nwl_v = [1.4, 2.0]"
    path = write_run_of(tmp_path, f'[[step]]\nprotocol = "forming"\n{ramp}\n')
    with read_run(path) as run:
        (step,) = steps_of(run)
        section, problem = section_of(step)
        gate = run.map("forming_gate").values[-1]
        hard = step.values("hard_to_form")
        faults = step.faults()
        left = int((faults["not_formed"] | faults["stuck_high_resistance"]).sum())
    assert not problem
    assert left > 12
    assert f" and {left - 12} more." in section.text
    assert section.text.count("(0, ") == 12
    (table,) = section.tables
    assert len(table.rows) == min(int((gate == 2.0).sum()), 50) > 0
    assert len(hard) == left + int((gate == 2.0).sum())
    assert not any("-" in word for row in table.rows for word in row)


def test_the_butterfly_has_every_cell_and_cycle_and_the_jump(characterised: Made) -> None:
    head, lines = numbers_of(characterised, "dc-sweep", "Butterfly, every cell and cycle")
    assert head[1:3] == ["voltage (bit line +, source line −) [V]", "|current| [A]"]
    with read_run(characterised[0]) as run:
        amps = run.result("dc-sweep", "current").values
        volts = run.result("dc-sweep", "voltage").values
        jump = run.result("dc-sweep", "set_voltage_by_cycle").values
    cells, cycles, _ = amps.shape
    thin = [np.array(rows) for name, rows in lines.items() if name != "median"]
    assert len(thin) == 2 * cells * cycles
    drawn = np.stack(
        [np.concatenate([a[:, 1], b[:, 1]]) for a, b in zip(thin[::2], thin[1::2], strict=True)]
    )
    assert np.array_equal(drawn, np.abs(amps.reshape(cells * cycles, -1)), equal_nan=True)
    # A thin line rises where its cell was SET.
    cell, cycle = np.argwhere(jump > volts[1])[0]
    one = thin[2 * (cell * cycles + cycle)]
    rising = np.argmax(one[:, 0])
    at = int(np.argmax(np.diff(np.log(one[: rising + 1, 1]))))
    assert one[at, 0] <= jump[cell, cycle] <= one[at + 1, 0]


def test_the_states_of_endurance_are_those_stored(characterised: Made) -> None:
    _, lines = numbers_of(characterised, "endurance", "Both states")
    with read_run(characterised[0]) as run:
        cycle = run.result("endurance", "cycle").values
        for name, key in (("after SET", "set"), ("after RESET", "reset")):
            ends = [
                run.result("endurance", f"{key}_state_{e}").values
                for e in ("median", "low", "high")
            ]
            assert np.array_equal(np.array(lines[name]), np.stack([cycle, *ends], axis=1))


def test_retention_draws_what_it_kept_and_says_why_it_left_others_out(tmp_path: Path) -> None:
    form = "bl_v = { start_v = 2.4, stop_v = 3.1, step_v = 0.1 }\nwl_v = [2.0]"
    keep = f"cells = {{ rows = [0, 3] }}\nlevels_s = [40e-6, 80e-6]\nlast_s = 10\n{PULSES}"
    recipe = "".join(
        f'[[step]]\nprotocol = "{name}"\n{keys}\n'
        for name, keys in (("forming", form), ("retention", keep))
    )
    path = write_run_of(tmp_path, recipe, BENCH.replace("seed = 3", 'seed = 3\nstate = "c.state"'))
    again = run_recipe(tmp_path / "recipe.toml", tmp_path / "bench.toml", path, resume=True)
    with read_run(path) as run:
        step = steps_of(run)[-1]
        kept = int(run.map("kept").values[-1].sum())
        section, problem = section_of(step)
        assert step.figures["drift"].unit == "S/decade"
    assert not problem
    assert 10 < kept < 118
    told: Any = again.steps[-1][1]
    assert told.kept == kept
    assert told.out_of_pulses + told.out_of_reversals + told.unreadable == 128 - kept
    assert told.out_of_pulses > 0
    assert section.text == f"{kept} of 128 cells are kept: {128 - kept} did not reach their levels."
    thin = [line for line in section.plots[0].lines if line.faint]
    assert len(thin) == kept
    assert min(line.y.min() for line in thin) > 10e-6


def test_programmed_against_target_is_every_cell_that_is_sound(programmed: Made) -> None:
    _, lines = numbers_of(programmed, "one-shot", "Programmed against target")
    with read_run(programmed[0]) as run:
        target, found = run.map("target"), run.map("conductance")
        sound = np.isfinite(target.values[0])
        for marks in steps_of(run)[0].faults().values():
            sound &= ~marks
    assert np.isfinite(target.values[0]).sum() - sound.sum() == 2
    wanted = target.values[0][sound]
    cells = np.array(lines["cells"])
    assert np.array_equal(cells[:, 0], wanted)
    read = found.values[list(found.step).index(4)]
    assert np.array_equal(cells[:, 1], read[sound])


def test_a_table_says_why_cells_are_not_inside(programmed: Made) -> None:
    with read_run(programmed[0]) as run:
        (step,) = (s for s in steps_of(run) if s.name == "ispp")
        section, _ = section_of(step)
        reason = step.map("reason")
    (table,) = section.tables
    told = {why: int(cells.replace("\u202f", "").replace(" ", "")) for why, cells in table.rows}
    assert told["out of pulses"] == np.sum(reason == Reason.OUT_OF_PULSES) > 0
    assert sum(told.values()) == np.sum(reason > Reason.INSIDE)


def test_the_matrix_of_classes_counts_every_image(programmed: Made) -> None:
    _, views, _ = programmed
    view = next(v for v in views if v.title == "6 infer")
    text = next(n.text for p, n in view.pictures if p.title.startswith("Which class"))
    counts = np.array([row[1:] for row in csv.reader(io.StringIO(text))][1:], dtype=np.int64)
    with read_run(programmed[0]) as run:
        labels, found = (run.result("infer", n).values for n in ("labels", "predictions"))
    assert counts.sum() == labels.size
    assert np.trace(counts) == np.sum(labels == found)


def test_maps_are_shown_with_their_change(programmed: Made) -> None:
    text = Page(programmed[2]).text
    assert "Target and programmed" in text
    for title in ("conductance, first (step 1)", "conductance: last − first", "inside afterwards"):
        assert title in text


def test_what_files_say_stays_text(formed: Path, tmp_path: Path) -> None:
    path = copy_run(
        formed, tmp_path / "bad.h5", run=HOSTILE, operator=HOSTILE, chip_id=HOSTILE, recipe=HOSTILE
    )
    with h5py.File(path, "r+") as file:
        (name,) = file["results"]
        file["results"].move(name, f"1_{HOSTILE}".replace("/", "_"))
        file["maps"].move("pristine", HOSTILE.replace("/", "_"))
    out, numbers = tmp_path / "bad.html", tmp_path / "numbers"
    assert command("report", path, "-o", out, "--csv", numbers) == 0
    text = out.read_text(encoding="utf-8")
    Page(text).assert_alone()
    assert "\x1b" not in text
    assert "<script>" not in text
    assert all(re.fullmatch(r"[a-z0-9-]+\.csv", file.name) for file in numbers.iterdir())


@pytest.mark.parametrize("journal_alone", [False, True])
def test_a_run_under_way_has_a_page(tmp_path: Path, journal_alone: bool) -> None:
    path = write_run(tmp_path / "run.h5", None, journal=True, file=not journal_alone)
    with Journal.resume(journal_of(path)):
        assert command("report", path, "-o", tmp_path / "page.html") == 0
        text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "This run is under way" in text
    assert command("report", journal_of(path), "-o", tmp_path / "page.html") == 0
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "This run is not complete (interrupted)" in text


def test_what_is_no_run_is_refused_in_one_line(
    tmp_path: Path, formed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(formed.read_bytes()[:5000])
    hollow = tmp_path / "hollow.h5"
    shutil.copyfile(formed, hollow)
    with h5py.File(hollow, "r+") as file:
        del file["steps/started_s"]
    for arguments, said in (
        ([broken], "broken.h5"),
        ([hollow], "hollow.h5"),
        ([tmp_path / "none.h5"], "no such file"),
        ([formed, "-o", tmp_path / "run.h5"], "ends in .html"),
        ([formed, formed, formed], "two compared"),
        ([formed, tmp_path], "not both"),
        ([tmp_path, "--chip", "none"], "no run in"),
        ([formed, "--chip", "c1"], "goes with folders"),
        ([formed, formed, "--csv", tmp_path / "x"], "goes with one run"),
    ):
        assert command("report", *arguments) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.splitlines()) == 1, told
    assert not list(tmp_path.glob("*.html"))


def test_a_section_that_fails_is_told_and_the_arrays_are_drawn_all_the_same(
    characterised: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rram_hil.protocols.endurance import Endurance

    def broken(step: RunStep) -> Section:
        raise ZeroDivisionError(HOSTILE)

    monkeypatch.setattr(Endurance, "section", broken)
    with read_run(characterised[0]) as run:
        step = next(s for s in steps_of(run) if s.protocol == "endurance")
        section, problem = section_of(step)
        assert "ZeroDivisionError" in problem
        assert "\x1b" not in problem
        assert [plot.title for plot in section.plots] == [
            "After RESET",
            "After SET",
            "Surviving cells",
        ]


def test_a_run_file_makes_no_code_run(
    characterised: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with read_run(characterised[0]) as run:
        step = next(s for s in steps_of(run) if s.protocol == "endurance")
        step.protocol = "./evil.py:Evil"
        section, problem = section_of(step)
    assert problem == ""
    assert section.plots


UNFORMED = """
title = "a part does not form"

[[step]]
protocol = "forming"
bl_v = { start_v = 2.4, stop_v = 3.1, step_v = 0.1 }
wl_v = [2.0]
"""
PROGRAM_MAP = f"""
[[step]]
protocol = "write-verify"
targets = {{ map = "target.npy" }}
max_pulses = 30
{PULSES}

[[step]]
protocol = "read-map"
"""


@pytest.mark.long
def test_cells_that_never_formed_are_no_error_of_programming(tmp_path: Path) -> None:
    """A part of the array does not form; write-verify leaves it alone, so its targets say nothing
    of how well cells are programmed: in the run that formed, and in one that recalls it.
    """
    np.save(tmp_path / "target.npy", np.linspace(40e-6, 90e-6, 1024).reshape(1, 32, 32))
    bench = BENCH.replace("seed = 3", 'seed = 3\nstate = "chip.state"')
    first = write_run_of(tmp_path, UNFORMED + PROGRAM_MAP, bench)
    recall = '[[step]]\nprotocol = "recall"\nrun_file = "run.h5"\n'
    for path in (first, write_run_of(tmp_path, recall + PROGRAM_MAP, bench, "second.h5")):
        with read_run(path) as run:
            (panel,) = panels_of(run)
            unformed = steps_of(run)[-1].faults()["not_formed"]
            pulses = run.map("set_pulses").values[-1]
            section, _ = section_of(steps_of(run)[-1])
            (note,) = (p.note for p in section.plots if p.title.startswith("Programmed"))
            assert 50 < unformed.sum() < 900
            assert not pulses[unformed].any()
            cells = MapCells.of(panel)
            assert np.array_equal(cells.not_formed, unformed)
            assert not cells.responsive[unformed].any()
            assert cells.error.min() > -0.9
            assert "stuck or not formed are left out" in note
        assert f"{unformed.sum()} " in Page(pages(path)[1]).text
    with read_run(first) as run, read_run(tmp_path / "second.h5") as other:
        rows = {row[:2]: row[2:4] for row in compared_results(run, other)}
        assert "inside share" in {name for step, name in rows if step == "write-verify"}
        names = "set_pulses", "reset_pulses"
        given = [int(sum(r.map(n).values[-1].sum() for n in names)) for r in (run, other)]
        assert rows["write-verify", "pulses"] == tuple(count(n) for n in given)


def test_two_runs_are_compared(formed: Path, tmp_path: Path) -> None:
    changed = FORMING.replace("stop_v = 3.9", "stop_v = 3.2")
    other = write_run_of(
        tmp_path,
        changed,
        (formed.parent / "bench.toml").read_text().replace("seed = 3", "seed = 4"),
    )
    with read_run(formed) as first, read_run(other) as second:
        settings = {key: (a, b) for key, a, b in differing_settings(first, second)}
        assert settings["recipe.forming.bl_v.stop_v"] == ("3.9", "3.2")
        assert settings["bench.simulation.seed"] == ("3", "4")
        assert "recipe.title" not in settings
        assert differing_settings(first, first) == []
        results = {row[1]: row for row in compared_results(first, second)}
        one, two = (float(r.result("forming", "threshold_v").values) for r in (first, second))
        assert results["threshold v"][2].startswith(f"{one:.2f}"[:3])
        assert float(results["threshold v"][5]) * (two - one) > 0
        maps = {pair.name: pair for pair in compared_maps(first, second)}
        change = second.map("conductance").values[-1] - first.map("conductance").values[-1]
        mean = f"mean difference {np.nanmean(change) * 1e6:.3g} µS"
        assert mean in maps["conductance"].text
        assert maps["stuck_low_resistance"].text.startswith("Marked in both:")
    out = tmp_path / "both.html"
    assert command("report", formed, other, "-o", out) == 0
    page = Page(out.read_text(encoding="utf-8"))
    page.assert_alone()
    assert "recipe.forming.bl_v.stop_v" in page.text
    assert page.text.count("Formed cells against voltage") == 2


def test_maps_that_do_not_fit_are_said_not_to(formed: Path, tmp_path: Path) -> None:
    small = write_run(tmp_path / "small.h5")
    with read_run(formed) as first, read_run(small) as second:
        (pair,) = compared_maps(first, second)
    assert "cannot be subtracted" in pair.text
    assert command("report", formed, small, "-o", tmp_path / "p.html") == 0


@pytest.mark.long
def test_csv_files_hold_what_the_page_links(formed: Path, tmp_path: Path) -> None:
    assert command("report", formed, "-o", tmp_path / "p.html", "--csv", tmp_path / "n") == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    linked = re.findall(r'download="(.*?)" href="data:text/csv;base64,(.*?)"', page)
    assert {name for name, _ in linked} == {file.name for file in (tmp_path / "n").iterdir()}
    for name, data in linked:
        assert (tmp_path / "n" / name).read_bytes() == base64.b64decode(data)


@pytest.mark.parametrize("kind", ["png", "svg", "csv"])
def test_a_map_is_written_as_a_file(formed: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"map.{kind}"
    export = ("export", formed, "--map", "forming_voltage", "-o", out)
    assert command(*export) == 0
    assert command(*export) == 2  # it is there
    assert command(*export, "--force") == 0
    data = out.read_bytes()
    if kind == "png":
        assert data.startswith(b"\x89PNG")
    elif kind == "svg":
        assert b"<svg" in data
    else:
        head, *rows = csv.reader(io.StringIO(data.decode()))
        assert head == ["tile", "row", "column", "forming_voltage [V]"]
        with read_run(formed) as run:
            values = run.map("forming_voltage").values[-1]
        for tile, row, column, field in rows:
            value = values[int(tile), int(row), int(column)]
            assert float(field) == value if field else np.isnan(value)
        assert len(rows) == values.size
    assert list(tmp_path.iterdir()) == [out]


def test_a_map_that_there_is_not_is_refused(
    formed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, said in (
        (("--map", "none", "-o", "x.png"), "no 'none' in it; there are: conductance"),
        (("--map", "conductance", "-o", "x.gif"), ".png, .svg, .csv"),
        (("--map", "conductance", "-o", "x.png", "--save", "9"), "must lie in 1..1"),
        (("--map", "conductance", "-o", "x.png", "--tile", "4"), "must lie in 0..0"),
        (("--map", "conductance"), "go together"),
        (("-o", "x.png"), "--map NAME"),
    ):
        assert command("export", formed, *more) == 2
        assert said in capsys.readouterr().err


def test_notebooks_show_maps_arrays_and_plots(
    formed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    with read_run(formed) as run:
        stack = run.map("conductance")
        shown = stack._repr_html_()
        Page(shown).assert_alone()
        assert shown.count("data:image/png;base64,") == 1
        axes = stack.plot(save=1)
        drawn = axes.get_images()[0].get_array()
        assert np.allclose(np.asarray(drawn) * 1e-6, stack.values[0, 0])
        assert axes.get_title() == "conductance, step 1"
        assert len(run.plot("conductance").axes) == 2  # the map and its scale
        with pytest.raises(ConfigError, match=r"must lie in 0\.\.0"):
            stack.plot(tile=3)
        with pytest.raises(DataError, match="no 'x' in it"):
            run.plot("x")
        assert "95" in run.result("forming", "threshold_v")._repr_html_()
    pyplot.close("all")


def test_benches_and_results_show_themselves(rram_bench: Any) -> None:
    from rram_hil import read

    shown = rram_bench._repr_html_()
    assert "simulated-array" in shown
    assert "pulses_per_cell" in shown
    result = rram_bench.do(read(rram_bench.cells()))._repr_html_()
    assert "ApplyResult" in result
    assert "conductance_s" in result
    Page(shown + result).assert_alone()


def test_a_plot_of_too_much_draws_less_and_keeps_all_numbers() -> None:
    x = np.arange(3.0 * POINTS_DRAWN)
    plot = Plot("many", Axis("x", "s"), Axis("y", "A"), (Line(x, np.sqrt(x) * 1e-6),))
    picture = draw(plot)
    assert "One point in 3 is drawn." in picture.note
    assert len(csv_of(plot).splitlines()) == 1 + x.size
    faint = tuple(Line(x[:3], x[:3] + k, faint=True) for k in range(200))
    assert "60 of 200 thin lines" in draw(Plot("t", Axis("x"), Axis("y"), faint)).note


def test_prefixes_and_logarithms_suit_the_values() -> None:
    x, narrow = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.1, 1.2])
    picture = draw(Plot("t", Axis("time", "s"), Axis("G", "S", log=True), (Line(x, x * 1e-6),)))
    assert "G (µS)" in picture.svg
    flat = draw(Plot("t", Axis("x"), Axis("y", log=True), (Line(x, narrow),))).svg
    assert ">1.050</text>" in flat
    nothing = draw(Plot("t", Axis("x"), Axis("y"), (Line(x, x * np.nan),)))
    assert (nothing.svg, nothing.note) == ("", "There is no value to draw.")


@given(value=st.floats(-1e3, 1e3), size=st.integers(1, 50), spread=st.floats(0, 1e-12))
def test_equal_values_have_a_histogram_around_them(value: float, size: int, spread: float) -> None:
    value = value if abs(value) > 1e-12 else 9.77e-9
    line = histogram(value * (1 + np.linspace(0, spread, size)))
    assert line.y.sum() == size
    assert np.all(np.abs(line.x - value) < 0.1 * abs(value))
    assert histogram(np.zeros(0)).y.sum() == 0
    wide = histogram(np.array([value, 2 * value]))
    assert wide.x.max() - wide.x.min() == pytest.approx(0.8 * abs(value))


def test_one_cell_has_no_spread_of_its_change(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Journal.create(journal_of(path), scenarios.header()) as journal:
        for step, of_cells in enumerate(([1e-5], [2e-5], [3e-5, 1e-5], [4e-5, 4e-5]), 1):
            values = np.full(scenarios.GEOMETRY.shape, np.nan)
            values.ravel()[: len(of_cells)] = of_cells
            journal.append(Saved(step, "conductance", values, MAP, "S"))
    with newest(path) as run:
        (view,) = map_views(run)
    assert [row[-2:] for row in view.rows] == [
        ("", ""),
        ("10 µS", "-"),
        ("10 µS", "-"),
        ("20 µS", "10 µS"),
    ]


def test_a_line_of_a_table_begins_no_formula() -> None:
    plot = Plot("t", Axis("x"), Axis("y"), (Line(np.ones(1), np.ones(1), "=1+1"),))
    assert csv_of(plot).splitlines()[1].startswith("'=1+1,")


def test_lines_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="y has shape"):
        Line(np.ones(3), np.ones(4), "a")
    with pytest.raises(DataError, match="needs both"):
        Line(np.ones(3), np.ones(3), "a", low=np.ones(3))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_a_distribution_rises_from_nothing_to_all(values: list[float]) -> None:
    line = cumulative(np.array([*values, np.nan]))
    assert line.y[0] == 0
    assert line.y[-1] == 1
    assert np.all(np.diff(line.y) >= 0)
    assert line.low is not None
    assert line.high is not None
    assert np.all((line.low <= line.y + 1e-12) & (line.y <= line.high + 1e-12))


@given(st.integers(1, 1000), st.data())
def test_the_interval_of_a_share_lies_about_it(of: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    low, high = wilson(np.array(float(count)), of)
    assert 0 <= low <= count / of <= high <= 1
    figure = proportion(count, of)
    assert figure.uncertainty == pytest.approx(max(high - figure.value, figure.value - low))


def test_escapes_of_texts_are_read_back(formed: Path) -> None:
    _, page = pages(formed)
    with read_run(formed) as run:
        assert str(run.attributes["recipe"]).strip() in unescape(page)
    assert isinstance(run, RunFile)
