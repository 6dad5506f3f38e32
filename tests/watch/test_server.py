"""The page's server: who may ask, what may be asked, and that files are only what they say."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import watched
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from starlette.types import ASGIApp

from rram_hil.array import Geometry, Status
from rram_hil.errors import ConfigError, DataError
from rram_hil.report import maps
from rram_hil.storage.frames import Note
from rram_hil.watch import serve
from rram_hil.watch.cell_map import CellMap
from rram_hil.watch.runs import Runs, key_of
from rram_hil.watch.serve import PageOfRun, serve_page
from rram_hil.watch.server import FILES, HEADERS, Keeper, Page

GEOMETRY = Geometry(2, 4, 6)
TOKEN = "a-token"
HOST = "http://127.0.0.1:8765"
PAGE = Path(serve.__file__).with_name("page")
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e"


class Browser:
    """Asks the application as a browser does, with the cookies that it was given."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.cookies = httpx.Cookies()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url=HOST, cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, **more)
                self.cookies = client.cookies
            return answer

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)


Client = Callable[..., Browser]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run under way whose names are hostile."""
    path = tmp_path / "run.h5"
    with watched.under_way(path, GEOMETRY, 3, run=HOSTILE, chip_id=HOSTILE) as journal:
        journal.append(Note("error", HOSTILE, ""))
        yield path


@pytest.fixture
def keeper() -> Keeper:
    return Keeper(TOKEN)


@pytest.fixture
def client(run: Path, keeper: Keeper) -> Client:
    """Makes a browser: one that has the page open, or (`known=False`) has not. A stream of events
    ends after the second look.
    """

    def make(*, known: bool = True) -> Browser:
        looks = iter([False, False])
        page = Page(Runs(run.parent), keeper, lambda: next(looks, True))
        made = Browser(page.app())
        if known:
            assert made.get("/", params={"token": TOKEN}).status_code == 200
        return made

    return make


def events(client: Browser, keys: str) -> list[tuple[str, dict[str, object]]]:
    """What a page is told, event by event."""
    text = client.get("/events", params={"runs": keys}).text
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(kind, json.loads(data)) for kind, data in found]


def routes(key: str) -> list[str]:
    return [
        "/",
        "/events",
        f"/map/{key}",
        f"/cell/{key}?tile=0&row=0&column=0",
        f"/bench/{key}",
    ] + [f"/page/{name}" for name in FILES]


def test_nobody_comes_in_without_the_token(client: Client, run: Path) -> None:
    for route in [*routes(key_of(run)), "/nowhere"]:
        stranger = client(known=False)
        for more in ("", "token=", "token=a-toke", "token=a-token2", "token=%F0%9F%98%80"):
            route_so = f"{route}{'&' if '?' in route else '?'}{more}"
            assert stranger.get(route_so).status_code == 403, route_so
        assert not stranger.cookies
    # The token opens the page alone: everything else has the cookie, which no link can carry.
    assert client(known=False).get("/bench/x", params={"token": TOKEN}).status_code == 403


def test_the_token_gives_a_cookie_that_only_the_page_sends(client: Client, keeper: Keeper) -> None:
    answer = client(known=False).get("/", params={"token": TOKEN})
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert TOKEN not in said
    stranger = client(known=False)
    stranger.cookies.set(keeper.cookie, "guessed")
    assert stranger.get("/events").status_code == 403


def test_the_address_that_a_browser_is_started_with_holds_once(
    client: Client, keeper: Keeper
) -> None:
    once = keeper.once()
    assert client(known=False).get("/", params={"token": once}).status_code == 200
    assert client(known=False).get("/", params={"token": once}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost:8765", 200),
        ("127.0.0.1:9000", 200),
        ("localhost", 200),
        ("rebound.example", 421),
        ("rebound.example:8765", 421),
        ("127.0.0.1.rebound.example:8765", 421),
        ("127.0.0.1@rebound.example", 421),
        ("127.0.0.1:8765 ", 200),
        ("0.0.0.0:8765", 421),
        ("", 421),
    ],
)
def test_a_page_of_another_name_is_refused(client: Client, host: str, status: int) -> None:
    answer = client().get("/", headers={"Host": host.strip() if host else " "})
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_get_is_answered(client: Client, run: Path, method: str) -> None:
    page = client()
    for route in routes(key_of(run)):
        assert page.request(method, route).status_code == 405


def test_every_answer_bears_the_policy(client: Client, run: Path) -> None:
    page = client()
    answers = [page.get(route) for route in [*routes(key_of(run)), "/nowhere", "/map/x"]]
    answers += [page.request("POST", "/"), client(known=False).get("/")]
    for answer in answers:
        assert HEADERS.items() <= dict(answer.headers).items() or all(
            answer.headers[name] == value for name, value in HEADERS.items()
        )
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page//etc/passwd",
        "/page/uplot/../../server.py",
        "/page/index.html%00",
        "/map/..%2f..%2frun.h5",
        "/cell/run.h5",
        "/bench/0123456789abcdef",
        "/events/../page",
    ],
)
def test_no_path_leads_to_another_file(client: Client, path: str) -> None:
    assert client().get(path).status_code in (404, 403)


@pytest.mark.parametrize(
    "query",
    [
        *("tile=2", "tile=-1", "tile=x", "tile=1e0", "tile=" + "9" * 5000, "tile=\u0661"),
        *("row0=4", "row1=0", "row0=2&row1=2", "column1=7", "since=-2", "since=nan"),
    ],
)
def test_a_question_without_sense_is_refused(client: Client, run: Path, query: str) -> None:
    page = client()
    events(page, key_of(run))
    assert page.get(f"/map/{key_of(run)}?{query}").status_code == 400


def test_what_a_file_says_is_text_in_json(client: Client, run: Path) -> None:
    page = client()
    key = key_of(run)
    told = events(page, key)
    assert [kind for kind, _ in told][:2] == ["runs", "run"]
    shown = json.dumps(told, ensure_ascii=False)
    assert "onerror" in shown
    assert "\u202e" not in shown
    assert "\\x1b" in shown
    for route in routes(key)[1:4]:
        assert "html" not in page.get(route).headers["content-type"]
    assert str(run) not in json.dumps(events(client(), key)[1:])


def test_a_map_comes_whole_and_then_what_changed(client: Client, run: Path) -> None:
    page = client()
    key = key_of(run)
    events(page, key)
    answer = page.get(f"/map/{key}?tile=1")
    about = json.loads(answer.headers["x-map"])
    values = np.frombuffer(answer.content, "<f4")
    assert (about["changed"], about["rows"], about["columns"], values.size) == (None, 4, 6, 24)
    assert np.isfinite(values).all()
    again = page.get(f"/map/{key}?tile=1&since={about['version']}")
    assert (json.loads(again.headers["x-map"])["changed"], again.content) == (0, b"")
    target = np.frombuffer(page.get(f"/map/{key}?what=target").content, "<f4")
    assert target[:6] == pytest.approx(np.linspace(2e-5, 1.4e-4, 6))
    cell = page.get(f"/cell/{key}?tile=1&row=3&column=5").json()
    assert cell["now_s"] == pytest.approx(float(values[-1]))
    assert (cell["operations"], cell["labels"]) == (1, ["read map"])


@given(data=st.data())
def test_what_changed_put_into_the_older_map_gives_the_newer(data: st.DataObject) -> None:
    geometry = Geometry(1, 5, 8)
    chip = CellMap(geometry, 7)

    def measure() -> None:
        cell = np.array(data.draw(st.lists(st.integers(0, 39), max_size=9, unique=True)), np.int64)
        status = np.array([data.draw(st.sampled_from(list(Status))) for _ in cell], np.uint8)
        chip.measured(cell, np.arange(1.0, len(cell) + 1), status)

    measure()
    every = (slice(0, 5), slice(0, 8))
    held, version = chip.part("now", 0, *every, 64).values.ravel().copy(), chip.version
    for _ in range(data.draw(st.integers(0, 3))):
        measure()
    part = chip.part("now", 0, *every, 64, version)
    if part.at is None:
        held = part.values.ravel()
    else:
        held[part.at] = part.values
    assert np.array_equal(held, chip.now_s, equal_nan=True)


def test_a_large_map_comes_as_means() -> None:
    chip = CellMap(Geometry(1, 8, 8), 0)
    chip.saved(np.arange(64.0).reshape(1, 8, 8))
    part = chip.part("now", 0, slice(0, 8), slice(0, 8), 4)
    assert (part.block, part.values.shape, part.values[0, 0]) == (2, (4, 4), 4.5)


def test_the_colours_are_those_of_the_report() -> None:
    script = (PAGE / "colours.js").read_text(encoding="utf-8")
    viridis = re.findall(r"[0-9a-f]{6}", script.split("VIRIDIS")[1].split(".split")[0])
    ends = np.linspace(0, 1, len(viridis))
    wanted = colormaps["viridis"](ends, bytes=True)[:, :3]
    assert viridis == [bytes(colour).hex() for colour in wanted]
    named = dict(re.findall(r'(UNKNOWN|UNREADABLE|OVER_RANGE) = "(\w+)"', script))
    assert [f"#{named[n]}" for n in ("UNKNOWN", "UNREADABLE", "OVER_RANGE")] == [
        maps.UNUSED,
        maps.UNREADABLE,
        maps.STUCK_HIGH,
    ]
    assert all(colour[1:] in script for colour in maps.DIVERGING)


def test_the_page_is_its_own_files_and_nothing_from_elsewhere() -> None:
    there = {p.relative_to(PAGE).as_posix() for p in PAGE.rglob("*") if p.is_file()}
    assert there == set(FILES)
    for path in (p for p in PAGE.iterdir() if p.is_file()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|innerHTML\s*=[^=]|insertAdjacentHTML|eval\(", text), path
    assert "MIT License" in (PAGE / "uplot" / "LICENSE").read_text(encoding="utf-8")


def test_a_place_that_is_not_there_and_a_port_that_is_taken_are_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[[step]]\n")
    with pytest.raises(ConfigError, match="neither a run file"):
        Runs(recipe)
    with pytest.raises(ConfigError, match="there is no such folder, run file or journal"):
        Runs(tmp_path / "run.h5")
    text, journal = tmp_path / "first.toml", tmp_path / "note.h5.journal"
    for path in (text, journal):
        path.write_text('title = "no run"')
    with pytest.raises(ConfigError, match=r"first\.toml: neither a run file nor the journal"):
        Runs(text)
    with pytest.raises(DataError, match="not a journal of rram_hil"):
        Runs(journal)
    journal.write_bytes(b"RHJ1")  # has just begun
    assert len(Runs(journal).listing()) == 1
    with serve._listening(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ConfigError, match=f"--port {port}: .*; give another one"):
            serve_page(tmp_path, port=port, opens=False, say=print)


@pytest.mark.long
def test_a_request_that_nobody_answers_leaves_the_terminal_alone(tmp_path: Path) -> None:
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    said = tmp_path / "said"
    with said.open("w") as errors, watched.served(tmp_path, errors) as address:
        bare = address.partition("?")[0]
        assert httpx.get(bare, headers=asked).status_code == 403
        host, port = bare.removeprefix("http://").rstrip("/").split(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(b"no request\r\n\r\n")
            assert b" 400 " in line.recv(100)
    assert said.read_text() == ""


def test_without_its_extra_the_command_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rram-hil\[watch\]'"):
        serve_page(tmp_path, port=0, opens=False, say=print)


def test_a_page_of_a_run_begins_before_it_and_ends_after_it(tmp_path: Path) -> None:
    page = PageOfRun(tmp_path / "run.h5", opens=False, lingers_s=0.5)
    assert httpx.get(page.said).status_code == 200
    page.leave()
    assert page.process.wait(30) == 0
