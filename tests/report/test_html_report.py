"""The report: whole, honest, readable, and safe whatever it is given."""

import re
import shutil
import subprocess
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported_runs import Page

from rram_hil.errors import DataError
from rram_hil.networks.word_costs import WordCosts
from rram_hil.report.charts import accuracy_range
from rram_hil.report.maps import blocks, programming_error
from rram_hil.report.model import (
    Account,
    Bar,
    BarChart,
    Cost,
    CostArm,
    CostPart,
    KeyFigure,
    MapPanel,
    Report,
    ResultTable,
    Row,
)
from rram_hil.report.page import html, write_report
from rram_hil.units import duration, number, per_cent

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


def panel(
    tiles: int = 2, rows: int = 24, columns: int = 32, sigma: float = 0.1, seed: int = 1
) -> MapPanel:
    rng = np.random.default_rng(seed)
    shape = (tiles, rows, columns)
    target = rng.choice(np.linspace(2e-6, 50e-6, 8), shape)
    target[-1, rows // 2 :] = np.nan
    programmed = target * (1 + rng.normal(0, sigma, shape))
    low, high = rng.random(shape) < 0.02, rng.random(shape) < 0.09
    programmed[low], programmed[high & ~low] = 100e-6, 5e-8
    programmed[0, 0, :3] = np.nan
    low[0, 0, :3] = high[0, 0, :3] = False
    return MapPanel("Chip A7", target, programmed, low, high, "Read once.")


WORDS = WordCosts(2849, 236, 0.0502, 24_680, 0.0429)


@cache
def report() -> Report:
    table = ResultTable(
        "Preset paper",
        (
            Row("float", (0.9921,), reference=True),
            Row("one-shot", (0.881, 0.902), 123_412, 0, 0, 0.41234),
            Row("R-V-W", (0.9811, 0.9832), 1_904_113, 2_103_555, 0, 12_345.6),
            Row("KD+RSA", (0.9901, 0.9911), 123_412, 123_413, 852, 0.7342, WORDS),
        ),
        10_000,
        "A text of its own.",
    )
    cost = Cost(
        "Preset paper",
        (
            CostArm(
                "R-V-W",
                (CostPart("pulses", 1_780_701, 1.2), CostPart("reads", 2_103_555, 5.2)),
                27,
                5_920_020,
                0.619,
            ),
        ),
        CostArm(
            "RSA",
            (CostPart("map read", 852, 0.0017), CostPart("word writes", 3085, 3.1e-5)),
            2,
            281_892,
            0.0302,
            36.1,
        ),
        (CostArm("check", (CostPart("forward passes", 12_800, 0.0416),)),),
        "virtual",
        (("edge", 20e-9), ("conversion", 2e-6), ("transaction", 1e-3)),
    )
    account = Account(
        "A7",
        "bench 3",
        "recipe.toml",
        "2026-01-02 03:04:05 UTC",
        "virtual",
        "Ada",
        17,
        (("rram-hil", "0.1.0"), ("numpy", "2.1")),
    )
    figures = (KeyFigure("99.06 %", "accuracy"), KeyFigure("3,085", "words"))
    return Report(
        "LeNet-5 on chip A7",
        account,
        figures,
        (table,),
        (BarChart.of(table),),
        (cost,),
        (panel(),),
        ("All is simulated.",),
    )


@cache
def whole_page() -> str:
    return html(report())


def with_map(given: MapPanel) -> str:
    return html(only(maps=(given,)))


def only(**parts: Any) -> Report:
    return Report("some parts", report().account, **parts)


def test_the_page_is_well_formed_and_has_its_parts() -> None:
    page = Page(whole_page())
    assert page.tags.count("h1") == 1
    assert page.tags.count("svg") == 1 + 2 * 3 + 3
    assert "script" not in page.tags


def test_the_page_needs_nothing_from_outside() -> None:
    text = whole_page()
    page = Page(text)
    linked = [
        value
        for _, name, value in page.attributes
        if name in {"src", "href", "xlink:href", "srcset"}
    ]
    assert linked
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in linked)
    assert not re.search(r"https?:|url\((?!#)|@import|//", re.sub(r"data:[^\"]*", "", text))


def test_every_number_given_is_printed() -> None:
    given = report()
    text = Page(whole_page()).text
    wanted = [
        "A7",
        "bench 3",
        "recipe.toml",
        "2026-01-02 03:04:05 UTC",
        "virtual clock",
        "Ada",
        "17",
        "rram-hil 0.1.0",
    ]
    for figure in given.key_figures:
        wanted += [figure.value, figure.label]
    for row in given.results[0].rows:
        wanted += [row.name, per_cent(float(np.mean(row.accuracy)), 10_000)]
        wanted += [f"{100 * a:.2f}" for a in row.accuracy]
        wanted += [number(v) for v in (row.pulses, row.reads, row.vectors) if v is not None]
        words = row.words
        wanted += [number(v) for v in (words.words, words.digital, words.bits)] if words else []
        wanted += [duration(row.bench_s)] if row.bench_s is not None else []
    for arm in given.costs[0].arms:
        for part in arm.parts:
            wanted += [arm.name, part.name, number(part.count), duration(part.seconds)]
        if arm.operations:
            wanted += [f"{number(arm.link_bytes)} bytes", duration(arm.link_s)]
    wanted += [f"{name} {duration(seconds)}" for name, seconds in given.costs[0].durations]
    wanted += ["220 times", "3,697 times", "36.1 s"]
    wanted += ["All is simulated.", "A text of its own.", "Read once."]
    assert [w for w in wanted if w not in text] == []


def test_the_ratio_is_the_sum_of_the_parts_over_the_sum_of_the_parts() -> None:
    cost = report().costs[0]
    ((name, bench, board),) = cost.ratios
    assert name == "R-V-W"
    assert bench == pytest.approx(7.019 / (0.0017 + 3.1e-5 + 0.0302))
    assert board == pytest.approx(6.4 / (0.0017 + 3.1e-5))
    free = Cost("c", cost.baselines, CostArm("RSA", ()), clock="wall")
    assert np.isnan(free.ratios[0][1:]).all()
    Page(html(only(costs=(free,))))


def test_the_best_accuracy_on_the_chip_is_marked_and_the_float_network_is_not() -> None:
    best = re.findall(r'<tr role="row" class="wins">.*?</tr>', whole_page(), flags=re.DOTALL)
    assert len(best) == 1
    assert "KD+RSA" in best[0]


def test_the_bars_say_where_their_axis_begins() -> None:
    high = BarChart("t", (Bar("a", (0.98,)), Bar("b", (0.99,))))
    low = BarChart("t", (Bar("a", (0.1,)), Bar("b", (0.99,))))
    assert "not at 0" in html(only(charts=(high,)))
    assert "The axis begins at 0." in html(only(charts=(low,)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_accuracy_axis_holds_every_bar(values: list[float]) -> None:
    start, end = accuracy_range(min(values), max(values))
    assert 0 <= start < end
    assert start < min(values) or start == 0
    assert max(values) <= end + 1e-9 <= 1 + 2e-9


def test_an_accuracy_in_per_cent_is_refused() -> None:
    with pytest.raises(DataError, match="fraction"):
        Row("a", (99.2,))
    with pytest.raises(DataError, match="fraction"):
        Bar("a", (-0.1,))


def test_what_was_not_measured_is_said_and_does_not_crash() -> None:
    table = ResultTable(
        "t", (Row("a", ()), Row("b", (float("nan"),), None, None, float("nan"), None))
    )
    text = Page(html(only(results=(table,), charts=(BarChart.of(table), BarChart("u", ()))))).text
    assert "not known" in text
    assert "No accuracy was measured." in text
    assert "best" not in text.replace("“Best”", "")


def test_hostile_text_stays_text() -> None:
    bad = "<script>alert(1)</script>\"'&</title>@body@{0}%s"
    account = Account(bad, bad, bad, bad, "wall", bad, 1, ((bad, bad),), bad)
    table = ResultTable(bad, (Row(bad, (0.9, 0.8)), Row(bad, (0.95,), reference=True)), 5, bad)
    one, none = CostArm(bad, (CostPart(bad, 1, 1.0),), 1), CostArm(bad, (CostPart(bad, 0, 1.0),))
    cost = Cost(bad, (one,), none, clock="wall", durations=((bad, 1.0),), text=bad)
    chip = panel()
    hostile = Report(
        bad,
        account,
        (KeyFigure(bad, bad),),
        (table,),
        (BarChart.of(table),),
        (cost,),
        (MapPanel(bad, chip.target_s, chip.programmed_s, text=bad),),
        (bad,),
    )
    page = Page(html(hostile))
    assert "script" not in page.tags
    assert sorted(set(page.tags)) == sorted(set(Page(whole_page()).tags))


def test_maps_count_stuck_unreadable_and_unused_cells() -> None:
    given = panel()
    assert given.stuck_low is not None
    assert given.stuck_high is not None
    used = np.isfinite(given.target_s)
    low, high = used & given.stuck_low, used & given.stuck_high & ~given.stuck_low
    text = Page(with_map(given)).text
    assert f"{used.sum():,} of {used.size:,} cells are used." in text
    for mask, what in ((low, "stuck at low resistance"), (high, "stuck at high resistance")):
        assert f"{mask.sum()} ({100 * mask.sum() / used.sum():.2f} %) {what}" in text
    assert f"3 ({300 / used.sum():.2f} %) could not be read" in text
    assert f"{(~used).sum()} not used" in text


def test_the_programming_error_is_that_of_responsive_cells_above_the_lowest_level() -> None:
    target = np.array([[1e-6, 10e-6, 20e-6, 20e-6, np.nan, 40e-6, 10e-6]])
    programmed = np.array([[2e-6, 11e-6, 18e-6, 100e-6, 5e-6, np.nan, 1e-9]])
    low = np.array([[0, 0, 0, 1, 0, 0, 0]], dtype=bool)
    high = np.array([[0, 0, 0, 0, 0, 0, 1]], dtype=bool)
    assert programming_error(MapPanel("m", target, programmed, low, high)) == pytest.approx(
        [0.1, -0.1]
    )
    text = Page(with_map(MapPanel("m", target, programmed, low, high))).text
    assert re.search(r"sigma 0\.1(00)? , N = 2 ;", text)


def test_mean_sigma_and_number_are_those_of_the_cells() -> None:
    given = panel(1, 128, 128)
    error = programming_error(given)
    text = Page(with_map(given)).text
    assert f"sigma {number(float(error.std()))} , N = {error.size:,} ;" in text
    assert float(error.std()) == pytest.approx(0.1, abs=0.01)


PROGRAMMED = {
    "nan": np.full((4, 5), np.nan),
    "infinite": np.full((4, 5), np.inf),
    "zero": np.zeros((4, 5)),
    "absurd": np.full((4, 5), 9e37),
    "negative": np.full((4, 5), -1e-6),
}
TARGETS = {
    "nan": np.full((4, 5), np.nan),
    "one level": np.full((4, 5), 1e-5),
    "zero": np.zeros((4, 5)),
    "absurd": np.arange(20.0).reshape(4, 5),
}
DRAWN_AT_ONCE = [
    ("nan", "nan"),
    ("infinite", "one level"),
    ("zero", "zero"),
    ("absurd", "absurd"),
    ("negative", "nan"),
]
"""Every map without sense once; the other pairs take longer."""


@pytest.mark.parametrize(
    ("programmed", "target"),
    [
        pytest.param(*pair, marks=() if pair in DRAWN_AT_ONCE else pytest.mark.long)
        for pair in product(PROGRAMMED, TARGETS)
    ],
)
@pytest.mark.filterwarnings("error")
def test_maps_without_sense_are_drawn_without_a_crash(programmed: str, target: str) -> None:
    Page(with_map(MapPanel("m", TARGETS[target], PROGRAMMED[programmed])))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 300), (300, 2), (3, 3, 4)])
@pytest.mark.filterwarnings("error")
def test_arrays_of_any_shape_are_drawn(shape: tuple[int, ...]) -> None:
    target = np.random.default_rng(1).uniform(1e-6, 1e-4, shape)
    Page(with_map(MapPanel("m", target, target * 1.05)))
    Page(with_map(MapPanel("m", target, target * np.random.default_rng(2).normal(1, 0.3, shape))))


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="stuck_low"):
        MapPanel("m", np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))
    with pytest.raises(DataError, match="tiles, rows, columns"):
        MapPanel("m", np.zeros(4), np.zeros(4))


@pytest.mark.long
def test_many_tiles_and_large_tiles_say_what_is_not_drawn() -> None:
    many = np.full((11, 4, 4), 1e-5)
    assert "The first 8 of 11 tiles are drawn" in with_map(MapPanel("m", many, many))
    large = np.full((600, 8), 1e-5)
    assert "One pixel is a block of 2 x 2 cells" in with_map(MapPanel("m", large, large))


def test_blocks_are_means_of_what_can_be_read() -> None:
    values = np.array([[1.0, 3.0, 5.0], [np.nan, 2.0, np.nan], [np.nan, np.nan, 7.0]])
    assert np.array_equal(blocks(values, 2), np.array([[2.0, 5.0], [np.nan, 7.0]]), equal_nan=True)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, report())
    assert path.read_text(encoding="utf-8") == whole_page()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path / "missing" / "report.html", report())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to lay the page out")
def test_nothing_overflows_at_400_pixels(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    write_report(tmp_path / "report.html", report())
    # A headless window cannot be 400 pixels wide, a frame can; what it measures is read back from
    # the printed document. The policy of the report forbids scripts in it, so the frame around it
    # looks in.
    (tmp_path / "frame.html").write_text(
        """<iframe id="f" src="report.html" style="width:400px;height:900px;border:0"></iframe>
        <p id="out"></p>
        <script>f.onload = () => { const e = f.contentDocument.documentElement;
        out.textContent = `width ${e.scrollWidth} of ${e.clientWidth}`; }</script>""",
        encoding="utf-8",
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r"width (\d+) of (\d+)", done.stdout)
    assert found, done.stdout[-300:]
    assert int(found[2]) <= 400
    assert int(found[1]) <= int(found[2])
