"""The page in a real browser: it follows, it fits, it is accessible, and nothing in it runs that a
file says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import watched
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from small_bench import bench_toml

from rram_hil.array import Cells, Geometry
from rram_hil.storage.frames import Close, Note

pytestmark = pytest.mark.skipif(watched.CHROMIUM is None, reason="no chromium here")
GEOMETRY = Geometry(1, 24, 32)
HOSTILE = "<script>document.title='run'</script><img src=x onerror=document.title='run'>"
SLOW = """\
import time
import numpy as np
from rram_hil.array import Cells, read
from rram_hil.engine.protocol import Protocol


class Slow(Protocol[None]):
    def run(self, setting):
        for row in range(setting.geometry.rows):
            cells = Cells.block(0, [row], np.arange(setting.geometry.columns))
            yield from read(cells, setting.read, label="row by row")
            time.sleep(0.5)
"""
RECIPE = """\
title = "rows"
[[step]]
protocol = "forming"
[[step]]
name = "rows"
protocol = "./slow.py:Slow"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # a busy machine is slow, and no test is of that
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=watched.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves the page of a folder or run until the test's end; returns its address."""
    with ExitStack() as held:
        yield lambda place: held.enter_context(watched.served(place))


@pytest.fixture
def opened(browser: Browser, serve: object) -> Iterator[Callable[..., Page]]:
    """Opens an address in a window so wide; nothing may be said on the console of any. They are
    closed before the server ends.
    """
    said: list[str] = []
    pages: list[Page] = []

    def open_page(address: str, width: int = 1280) -> Page:
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert said == []


@pytest.mark.long
def test_two_runs_side_by_side_fit_every_window_and_their_names_are_text(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    with ExitStack() as held:
        for name in ("one", "two"):
            run = watched.under_way(
                tmp_path / f"{name}.h5", GEOMETRY, 4, run=f"{name} {HOSTILE}", chip_id=HOSTILE
            )
            journal = held.enter_context(run)
            journal.append(Note("error", HOSTILE, "2026-01-02T03:04:05+00:00"))
        address = serve(tmp_path)
        for width in (390, 1280):
            page = opened(address, width)
            cards = page.locator(".card[data-state]")
            expect(cards).to_have_count(2)
            expect(page.locator("section[data-drawn]")).to_have_count(2)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            left = [cards.nth(k).bounding_box() for k in range(2)]
            assert left[0] is not None
            assert left[1] is not None
            assert (left[0]["y"] == left[1]["y"]) == (width == 1280)
            expect(cards.first.locator("h2")).to_contain_text(HOSTILE)
            expect(cards.first.locator(".notes .error")).to_contain_text(HOSTILE)
            assert page.title() == "Runs - rram-hil watch"
            assert "token" not in page.url
            page.locator("#listing-summary").click()
            found = Axe().run(page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        journal.append(Close("complete", "2026-01-02T04:04:05+00:00"))
        expect(page.locator(".card[data-state='complete']")).to_have_count(1)
        page.get_by_role("button", name="hide").first.click()
        page.reload()
        expect(page.locator(".card")).to_have_count(1)


@pytest.mark.long
def test_a_map_of_a_million_cells_is_drawn_and_told(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    geometry = Geometry(1, 1024, 1024)
    with watched.under_way(tmp_path / "run.h5", geometry, 16) as journal:
        page = opened(serve(tmp_path / "run.h5"))
        drawn = page.locator("section[data-drawn]")
        expect(drawn).to_have_count(1)
        canvas = page.locator(".maps canvas").nth(2)
        canvas.click(position={"x": 100, "y": 50})
        line = page.locator(".readout strong")
        expect(line).to_have_text(
            re.compile(r"row \d+, column \d+ · now [\d.]+ uS · target [\d.]+ uS · error -?[\d.]+ ")
        )
        expect(page.locator(".readout li")).to_contain_text("read map")
        page.keyboard.press("ArrowRight")
        where = re.search(r"row (\d+), column (\d+)", line.inner_text())
        assert where is not None
        before = drawn.get_attribute("data-drawn")
        cells = Cells.of([(0, int(where[1]), int(where[2]))])
        for frame in watched.reading(99, cells, np.array([7.77e-6])):
            journal.append(frame)
        expect(line).to_contain_text("now 7.77 uS")
        assert drawn.get_attribute("data-drawn") != before


@pytest.mark.long
def test_a_run_is_followed_while_it_is_killed_and_resumed(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    bench = bench_toml(
        "c1", 16, 16, 100, simulation='device = "hfo2"\nseed = 1\nstate = "c1.state"'
    )
    (tmp_path / "bench.toml").write_text(bench, encoding="utf-8")

    def run(*more: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-P",
            "-m",
            "rram_hil.cli",
            "run",
            "recipe.toml",
            "-b",
            "bench.toml",
        ]
        return subprocess.Popen([*command, *more], cwd=tmp_path, start_new_session=True)

    page = opened(serve(tmp_path))
    expect(page.locator("#nothing")).to_be_visible()
    running = run()
    try:
        card = page.locator(".card")
        step = card.locator(".steps li").nth(1)
        expect(card).to_have_attribute("data-state", "under way")
        expect(step).to_contain_text("cells reached")
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        expect(card.locator(".said")).to_contain_text("ended without a word")
        expect(step.locator(".word")).to_have_text("not ended")
        running = run("--resume")
        expect(card).to_have_attribute("data-state", "under way")
        expect(card).to_have_attribute("data-state", "complete", timeout=60_000)
        expect(step.locator(".word")).to_have_text("done")
        expect(card.locator(".notes")).to_contain_text("resumed")
    finally:
        running.wait(60)
