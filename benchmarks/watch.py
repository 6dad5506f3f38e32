"""What the live page costs and how quick it is, in Chromium.

`cost`: processor time of the fastest run the product makes (the simulated chip in the process),
with the page open beside it and without, in alternating pairs. `lag`: a journal of 2,000 frames a
second, how far the page is behind and whether it has every frame. `map`: a run of 1024 x 1024
cells, until it is drawn first, and from pointing at a cell until its value and history stand
there. Bars: 3 %, 1 s and no frame missed, 2 s and 0.2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect, sync_playwright
from small_bench import PULSES, bench_toml

from rram_hil.array import MAP, ApplyResult, Cells, Geometry, Span, pulse
from rram_hil.hardware.driver import Identity
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import Frame, Header, Intent, Outcome, Saved, StepStart
from rram_hil.storage.journal import Journal
from rram_hil.storage.run_state import journal_of

RUN = [sys.executable, "-P", "-m", "rram_hil.cli"]
RATE = 2000
SIDE = 1024
CATCH_UP_S = 2.0
"""A run that begins is found within some seconds; what it wrote until then is read first."""
RECIPE = f"""\
title = "fastest"
log = "summary"
[[step]]
protocol = "forming"
[[step]]
protocol = "write-verify"
targets = {{ map = "target.npy" }}
tolerance_s = 2e-6
on_board = "never"
{PULSES}
[[step]]
protocol = "read-map"
repeat = 16
"""


def header(geometry: Geometry) -> Header:
    return Header(
        run="benchmark",
        chip_id="x",
        geometry=geometry,
        bench="",
        recipe='[[step]]\nprotocol = "forming"\n',
        started_utc="2026-01-01T00:00:00+00:00",
        clock="wall",
        instrument=Identity("none", "0"),
        package_version="",
    )


def operation(number: int, cells: Cells, conductance_s: NDArray[np.float64]) -> list[Frame]:
    """A pulse with a reading, announced and done."""
    n, value = len(cells), conductance_s[:, None]
    asked = operation_record(pulse(cells, bl_v=2.0, wl_v=2.0, width_s=1e-7))
    one, at = np.ones(n, np.int64), np.full((n, 1), float(number))
    span = Span(number * 1e-3, (number + 1) * 1e-3)
    result = ApplyResult(value * 0.2, value, np.zeros((n, 1), np.uint8), at, one, one, span)
    return [
        Intent(number, 1, asked, one, number * 1e-3),
        Outcome(number, result_record(result)),
    ]


@contextlib.contextmanager
def served(place: Path) -> Iterator[str]:
    """The address of the page of a folder."""
    command = [*RUN, "watch", str(place), "--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def processor_s(folder: Path) -> float:
    """Processor time (s) of one run, with all its children."""
    command = [*RUN, "run", "recipe.toml", "--bench", "bench.toml", "--threads", "1"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def make_run(folder: Path, side: int) -> None:
    simulation = 'device = "hfo2"\nseed = 1\nstate = "chip.state"'
    (folder / "bench.toml").write_text(bench_toml("x", side, side, 2000, simulation=simulation))
    (folder / "recipe.toml").write_text(RECIPE)
    levels = np.linspace(20e-6, 140e-6, side)
    np.save(folder / "target.npy", np.broadcast_to(levels, (1, side, side)))


def cost(browser: Browser, pairs: int, side: int) -> None:
    ratios = []
    for _ in range(pairs):
        used = []
        for watched in (False, True):
            with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
                folder = Path(name)
                make_run(folder, side)
                if watched:
                    page = browser.new_page()
                    page.goto(held.enter_context(served(folder)))
                    page.locator("#nothing").wait_for()
                used.append(processor_s(folder))
                if watched:
                    expect(page.locator(".card[data-state=complete]")).to_have_count(1)
                    page.close()
        ratios.append(used[1] / used[0] - 1)
        print(f"  alone {used[0]:6.2f} s, watched {used[1]:6.2f} s: {ratios[-1]:+.1%}", flush=True)
    print(f"processor time of a watched run: {statistics.median(ratios):+.2%} (bar: +3 %)")


def write_quickly(path: Path, seconds: float) -> None:
    """Append frames at the rate, and keep when each was written (monotonic clock, s)."""
    geometry = Geometry(1, 256, 256)
    value = np.full(64, 5e-5)
    with Journal.create(journal_of(path), header(geometry)) as journal:
        journal.append(StepStart(1, "forming", "forming", "1"))
        written = [time.monotonic()] * 2
        began = time.monotonic()
        number = 0
        while (spent := time.monotonic() - began) < seconds:
            while len(written) < spent * RATE:
                number += 1
                cells = Cells.from_index(np.arange(64) + 64 * (number % 1024), geometry)
                for frame in operation(number, cells, value):
                    journal.append(frame)
                    written.append(time.monotonic())
            time.sleep(0.002)
        np.save(path.with_suffix(".npy"), np.array(written))
        sys.stdin.readline()


def lag(browser: Browser, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as address:
        path = Path(name) / "run.h5"
        command = [sys.executable, __file__, "--write", str(path), "--seconds", str(seconds)]
        page = browser.new_page()
        page.goto(address)
        page.locator("#nothing").wait_for()
        with subprocess.Popen(command, stdin=subprocess.PIPE) as writer:
            page.locator(".card[data-frames]").wait_for(timeout=30_000)
            card = page.locator(".card")
            seen = []
            while not path.with_suffix(".npy").exists():
                frames = int(card.get_attribute("data-frames") or 0)
                seen.append((time.monotonic(), frames))
                time.sleep(0.02)
            time.sleep(2)
            last = int(card.get_attribute("data-frames") or 0)
            written = np.load(path.with_suffix(".npy"))
            writer.communicate(b"\n")
        page.close()
    # What is shown at a time lags by how long ago the next frame, not yet shown, was written.
    behind = [(at, at - written[n]) for at, n in seen if 0 < n < len(written) and at >= written[n]]
    found_s = behind[0][0]
    followed = [lag_s for at, lag_s in behind if at > found_s + CATCH_UP_S]
    rate = len(written) / (written[-1] - written[0])
    print(
        f"{rate:.0f} frames a second: lag median {np.median(followed):.2f} s, most"
        f" {np.max(followed):.2f} s (bar: 1 s), in the first {CATCH_UP_S} s after the run was"
        f" found {max(lag_s for _, lag_s in behind):.2f} s;"
        f" {len(written) - last} of {len(written)} missed"
    )


def large_map(browser: Browser, rounds: int) -> None:
    geometry = Geometry(1, SIDE, SIDE)
    target = np.broadcast_to(np.linspace(2e-5, 1.4e-4, SIDE), geometry.shape)
    noise = np.random.default_rng(1)
    drawn, told = [], []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run.h5"
        with Journal.create(journal_of(path), header(geometry)) as journal:
            journal.append(StepStart(1, "forming", "forming", "1"))
            journal.append(Saved(1, "target", target.copy(), MAP, "S"))
            for number, index in enumerate(np.array_split(np.arange(geometry.size), 16), 1):
                value = target.ravel()[index] * noise.normal(1, 0.1, index.size)
                for frame in operation(number, Cells.from_index(index, geometry), value):
                    journal.append(frame)
            for _ in range(rounds):
                with served(Path(name)) as address:
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    began = time.perf_counter()
                    page.goto(address)
                    page.locator("section[data-drawn]").wait_for()
                    drawn.append(time.perf_counter() - began)
                    told += [hover_s(page, at) for at in (30, 70, 110, 150)]
                    page.close()
    print(
        f"{SIDE} x {SIDE}: drawn first after {statistics.median(drawn):.2f} s, most"
        f" {max(drawn):.2f} s (bar: 2 s); value and history of a cell after"
        f" {statistics.median(told):.3f} s, most {max(told):.3f} s (bar: 0.2 s)"
    )


def hover_s(page: Page, at: int) -> float:
    """Seconds from pointing at a cell until its value and history are there."""
    canvas = page.locator(".maps figure > canvas").nth(1)
    box = canvas.bounding_box()
    assert box is not None
    row, column = (int(at / box[side] * SIDE) for side in ("height", "width"))
    began = time.perf_counter()
    page.mouse.move(box["x"] + at, box["y"] + at)
    page.locator(".readout[data-cell]").wait_for()
    while not _near(page.locator(".readout").get_attribute("data-cell"), row, column):
        pass
    return time.perf_counter() - began


def _near(told: str | None, row: int, column: int) -> bool:
    """Whether that cell is told, or its neighbour: a pixel is several cells."""
    here = [int(n) for n in (told or "-9,-9").split(",")]
    return abs(here[0] - row) <= 4 and abs(here[1] - column) <= 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["cost", "lag", "map"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--side", type=int, default=256, help="rows and columns of the run's chip")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write is not None:
        write_quickly(given.write, given.seconds)
        return
    with sync_playwright() as started:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if "cost" in given.what:
            cost(browser, given.pairs, given.side)
        if "lag" in given.what:
            lag(browser, given.seconds)
        if "map" in given.what:
            large_map(browser, given.rounds)
        browser.close()


if __name__ == "__main__":
    main()
