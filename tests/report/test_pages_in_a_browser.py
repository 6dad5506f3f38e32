"""Pages in a browser, narrow and wide: nothing overflows, nothing is refused, nothing hides from
those who cannot see it well.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from reported_runs import BENCH, CHARACTERISED, FORMING, write_run_of
from run_files import copy_run

from rram_hil.catalogue.catalog import Catalog
from rram_hil.report.chip_page import chips_of, write_chip_page, write_dies_page
from rram_hil.report.compare import write_comparison
from rram_hil.report.run_page import write_run_page
from rram_hil.storage.run_reader import read_run

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
PAGES = ("run", "both", "chip", "dies")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to lay the pages out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of every kind."""
    place = tmp_path_factory.mktemp("pages")
    bench = BENCH.replace('id = "c1"', 'id = "W3-D7"\nlot = "W3"\ndie = "4,2"')
    first = write_run_of(place, FORMING, bench, "first.h5")
    second = copy_run(first, place / "second.h5", started_utc="2026-03-01T10:00:00Z", seed=2)
    copy_run(first, place / "other.h5", chip_id="W3-D8", die="5,3")
    work = place / "characterised"
    work.mkdir()
    whole = write_run_of(work, CHARACTERISED)
    with read_run(whole) as run:
        write_run_page(run, whole, place / "run.html")
    with read_run(first) as one, read_run(second) as two:
        write_comparison((one, two), (first, second), place / "both.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRAM_HIL_CATALOGUE", str(place / "catalogue"))
        chips = chips_of(Catalog(place))
    write_chip_page(next(c for c in chips if c.chip_id == "W3-D7"), place / "chip.html")
    write_dies_page(chips, place / "dies.html")
    return place


@pytest.fixture(scope="module")
def browser() -> Any:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_well(folder: Path, browser: Any, name: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    said: list[str] = []
    asked: list[str] = []
    # axe runs in the page, whose policy forbids scripts; without it the page is as it is read.
    for bypass in (False, True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, bypass_csp=bypass, color_scheme="light"
        )
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / f"{name}.html").as_uri())
        wide, seen = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= seen == width
        if bypass:
            found = axe.Axe().run(page).response["violations"]
            serious = [
                (v["id"], v["nodes"][0]["html"])
                for v in found
                if v["impact"] in ("serious", "critical")
            ]
            assert serious == []
        context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.long
def test_the_numbers_of_a_plot_can_be_saved(folder: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((folder / "run.html").as_uri())
    with page.expect_download() as kept:
        page.get_by_role("link", name="formed-cells-against-voltage.csv").click()
    text = Path(kept.value.path()).read_text(encoding="utf-8")
    assert kept.value.suggested_filename == "1-forming-formed-cells-against-voltage.csv"
    assert text.startswith("line,bit-line voltage [V],share of all cells,")
    page.close()
