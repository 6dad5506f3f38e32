"""The documentation site builds without a warning, has what is made from the code, and loads
nothing from outside.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from rram_hil.plugins import names

ROOT = Path(__file__).parents[2]
LOADS = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Attributes of elements whose address a browser fetches by itself."""
OUTSIDE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
NAMESPACE = "http://www.w3.org/"
"""Names of kinds of XML are spelt as addresses; nobody fetches them."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `.ci/run` does."""
    needed = [n for n in ("material", "mkdocstrings", "matplotlib") if find_spec(n) is None]
    if needed:
        pytest.skip(f"building the site needs {', '.join(needed)}: the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loads(HTMLParser):
    """Addresses that a page makes a browser fetch, its inline styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") in ("canonical", "alternate"):
            return
        self.addresses += [given[name] for name in LOADS.get(tag, ()) if name in given]
        self.texts.append(f"x {{ {given.get('style', '')} }}")

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script"):
            self.texts.append(data)


def fetched_by_styles(text: str) -> list[str]:
    return re.findall(r"(?:url\(\s*|@import\s+)[\"']?([^\"')\s]+)", text)


def quoted_in_scripts(text: str) -> list[str]:
    """Whatever a script could fetch from elsewhere is a string that begins as an address does."""
    return re.findall(r"[\"'`](https?://[^\"'`]*)", text)


def test_nothing_is_loaded_from_outside(site: Path) -> None:
    wrong = []
    for path in site.rglob("*"):
        if path.suffix not in (".html", ".css", ".js", ".svg"):
            continue
        text = path.read_text(encoding="utf-8")
        found = []
        if path.suffix == ".html":
            page = Loads(text)
            inline = "\n".join(page.texts)
            found = [*page.addresses, *fetched_by_styles(inline), *quoted_in_scripts(inline)]
        elif path.suffix == ".css":
            found = fetched_by_styles(text)
        elif path.suffix == ".js":
            found = [a for a in quoted_in_scripts(text) if not a.startswith(NAMESPACE)]
        else:
            found = [*Loads(text).addresses, *fetched_by_styles(text)]
        wrong += [f"{path.relative_to(site)}: {a}" for a in found if OUTSIDE.match(a)]
    assert not wrong


def test_every_address_within_the_site_is_there(site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # its addresses begin at the root of wherever the site is put
            continue
        for address in Loads(path.read_text(encoding="utf-8")).addresses:
            if address and not address.startswith(("data:", "#")):
                place = (path.parent / address.partition("#")[0].partition("?")[0]).resolve()
                assert place.exists(), f"{path.relative_to(site)}: {address}"


def test_pages_made_from_the_code_have_what_there_is(site: Path) -> None:
    def text(page: str) -> str:
        return (site / page / "index.html").read_text(encoding="utf-8")

    recipes, bench = text("recipes"), text("reference/bench-file")
    for group in ("rram_hil.protocols", "rram_hil.calibration"):
        assert all(f'id="{name}"' in recipes for name in names(group))
    assert recipes.count("<table>") > len(names("rram_hil.protocols"))
    for name in (*names("rram_hil.drivers"), *names("rram_hil.instruments")):
        assert f"&quot;{name}&quot;" in bench or f'"{name}"' in bench
    assert "rram-hil ledger merge" in text("reference/command-line")
    assert 'id="rram_hil.pulse"' in text("reference/api/rram_hil")
    assert "Frames of the journal" in text("reference/run-file-columns")
    assert (site / "notebooks" / "array-1.svg").exists()
    assert (site / "examples" / "bench-simulated.toml").exists()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a port of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_browser_asks_nobody_else_and_finds_no_fault(address: str, site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    pages = sorted(p.parent.relative_to(site).as_posix() for p in site.rglob("index.html"))
    asked: list[str] = []
    faults: list[str] = []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda said: faults.append(said.text) if said.type == "error" else 0)
            page.on("pageerror", lambda error: faults.append(str(error)))
            for name in pages if width == 390 else pages[:3]:
                page.goto(f"{address}{name}/")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    faults.append(f"{name} is wider than {width} px")
        page.goto(f"{address}")
        page.keyboard.press("/")
        page.keyboard.type("write-verify", delay=20)
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    assert not faults
    assert not [url for url in asked if not url.startswith((address, "data:"))]
