"""The page's server: a Starlette application that only answers GET, to who has its token.

What a request may name is a key of a run, a tile, a range of rows and columns; never a file. All
text leaves as JSON, which the page puts into text nodes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rram_hil.watch.cell_map import CellMap
from rram_hil.watch.follow import RunFollower
from rram_hil.watch.picture import told
from rram_hil.watch.runs import Runs
from rram_hil.watch.snapshot import bench_of, snapshot

EVERY_S = 0.3
"""Between two looks at what is new, for each page."""
BEHIND_S = 0.02
"""The same where one look did not take all that there was."""
MOST_RUNS = 8
"""Runs that one page follows at a time."""
MOST_VALUES = 1024
"""Values along a side of a map's picture; larger maps come as means over squares of cells."""
FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "card.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "map.js": "text/javascript; charset=utf-8",
    "colours.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.min.css": "text/css; charset=utf-8",
    "uplot/LICENSE": "text/plain; charset=utf-8",
}
"""All that is served from the disk: the page's own files, with their types."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")


class Keeper:
    """Who may ask: who names the token, or the cookie that its page was given.

    `once` makes a second token that holds for one request, for the command line of a browser, which
    others on this machine can read.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        # Cookies know no ports: servers beside each other must not take each other's.
        self.cookie = f"rram_hil_watch_{hashlib.sha256(token.encode()).hexdigest()[:12]}"
        self._session = secrets.token_urlsafe(32)
        self._once: set[str] = set()

    def once(self) -> str:
        """A token for one request."""
        token = secrets.token_urlsafe(32)
        self._once.add(token)
        return token

    def knows_token(self, query: QueryParams) -> bool:
        """Whether a request names the token, or one that was good once and is used up now."""
        named = query.get("token", "")
        if _same(named, self.token):
            return True
        for token in list(self._once):
            if _same(named, token):
                self._once.discard(token)
                return True
        return False

    def knows_cookie(self, request: Request) -> bool:
        """Whether a request brings the cookie."""
        return _same(request.cookies.get(self.cookie, ""), self._session)

    def give_cookie(self, response: Response) -> None:
        """The page's requests bring the cookie; no other site's do, and no script reads it."""
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="strict", path="/")


def _same(one: str, other: str) -> bool:
    """Compared in a time that does not tell how far they are alike."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


class Guard:
    """Before any route: the Host must be this machine's own name, the method GET, and the token or
    cookie there; behind it, the headers that every answer has.
    """

    def __init__(self, app: ASGIApp, keeper: Keeper) -> None:
        self._app, self._keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) != 1 or not _HOST.fullmatch(headers["host"]):
            # Another name that leads here is some site's, whose page would speak as this one.
            return PlainTextResponse("Ask for 127.0.0.1 or localhost.", 421)
        if scope["method"] != "GET":
            return PlainTextResponse("This page is only looked at.", 405, {"Allow": "GET"})
        request = Request(scope)
        if self._keeper.knows_cookie(request):
            return None
        if request.url.path == "/" and self._keeper.knows_token(request.query_params):
            scope["is_new_here"] = True
            return None
        return PlainTextResponse(
            "Open the address that rram-hil watch printed: it has the token.", 403
        )


class Page:
    """The routes. `stopping` says that the server ends; `open_pages` counts those that look now."""

    def __init__(self, runs: Runs, keeper: Keeper, stopping: Callable[[], bool]) -> None:
        self.open_pages = 0
        self._runs, self._keeper, self._stopping = runs, keeper, stopping
        folder = files("rram_hil.watch") / "page"
        self._files = {name: folder.joinpath(*name.split("/")).read_bytes() for name in FILES}

    def app(self) -> ASGIApp:
        """The application, guarded."""
        routes = [
            Route("/", self.index),
            Route("/page/{name:path}", self.file),
            Route("/events", self.events),
            Route("/map/{key}", self.map),
            Route("/cell/{key}", self.cell),
            Route("/bench/{key}", self.bench),
        ]
        app = Starlette(routes=routes)
        app.router.redirect_slashes = False
        return Guard(app, self._keeper)

    async def index(self, request: Request) -> Response:
        """The page; who comes with the token is given the cookie."""
        response = Response(self._files["index.html"], media_type=FILES["index.html"])
        if request.scope.get("is_new_here"):
            self._keeper.give_cookie(response)
        return response

    async def file(self, request: Request) -> Response:
        """A file of the page, by its name in `FILES`."""
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        return Response(self._files[name], media_type=FILES[name])

    async def events(self, request: Request) -> Response:
        """Server-sent events without end: `runs` where the list changed, `run` where one of the
        `runs` asked for did.
        """
        keys = [key for key in request.query_params.get("runs", "").split(",") if key][:MOST_RUNS]
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._events(keys), headers=headers, media_type="text/event-stream"
        )

    async def _events(self, keys: list[str]) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        self.open_pages += 1
        try:
            yield "retry: 1000\n\n"
            while not self._stopping():
                now = {"": await run_in_threadpool(self._listing)}
                for key in keys:
                    now[key] = await run_in_threadpool(self._snapshot, key)
                fresh = [k for k, text in now.items() if sent.get(k) != text]
                sent |= now
                for key in fresh:
                    yield f"event: {'run' if key else 'runs'}\ndata: {now[key]}\n\n"
                if not fresh:
                    yield ":\n\n"
                is_behind = any(self._runs.is_behind(key) for key in keys)
                await asyncio.sleep(BEHIND_S if is_behind else EVERY_S)
        finally:
            self.open_pages -= 1

    def _listing(self) -> str:
        return json.dumps({"place": told(self._runs.place.resolve()), "runs": self._runs.listing()})

    def _snapshot(self, key: str) -> str:
        run = self._runs.follower(key)
        if run is None:
            return json.dumps({"key": key, "run": None})
        with run.lock:
            run.refresh()
            return json.dumps({"key": key, "run": snapshot(run)}, allow_nan=False)

    def _run(self, request: Request) -> RunFollower:
        run = self._runs.follower(request.path_params["key"])
        if run is None:
            raise HTTPException(404)
        return run

    async def bench(self, request: Request) -> Response:
        """The bench of a run and its limits."""
        run = self._run(request)

        def answer() -> dict[str, Any]:
            with run.lock:
                return bench_of(run.picture)

        return JSONResponse(await run_in_threadpool(answer))

    async def map(self, request: Request) -> Response:
        """A part of a map as 32-bit floats (S, little-endian), row by row; where few cells changed
        `since` a version, their places (32-bit, flat) and then their values.

        The header X-Map says as JSON which of the two, the `version`, the rectangle and how many
        cells along a side are one value.
        """
        run, query = self._run(request), request.query_params

        def answer() -> tuple[bytes, dict[str, Any]]:
            with run.lock:
                return _map_part(run.picture.map, query)

        body, about = await run_in_threadpool(answer)
        return Response(
            body, media_type="application/octet-stream", headers={"X-Map": json.dumps(about)}
        )

    async def cell(self, request: Request) -> Response:
        """What is known of one cell, with its history."""
        run, query = self._run(request), request.query_params

        def answer() -> dict[str, Any]:
            with run.lock:
                chip = run.picture.map
                if chip is None:
                    raise HTTPException(404)
                shape = chip.geometry.shape
                names = ("tile", "row", "column")
                tile, row, column = (
                    _whole(query, n, 0, size - 1) for n, size in zip(names, shape, strict=True)
                )
                return run.picture.cell(tile, row, column)

        return JSONResponse(await run_in_threadpool(answer))


def _map_part(chip: CellMap | None, query: QueryParams) -> tuple[bytes, dict[str, Any]]:
    what = query.get("what", "now")
    if chip is None or what not in ("now", "target"):
        raise HTTPException(404)
    tiles, rows, columns = chip.geometry.shape
    tile = _whole(query, "tile", 0, tiles - 1)
    row0, column0 = _whole(query, "row0", 0, rows - 1), _whole(query, "column0", 0, columns - 1)
    row1 = _whole(query, "row1", row0 + 1, rows, rows)
    column1 = _whole(query, "column1", column0 + 1, columns, columns)
    since = _whole(query, "since", -1, (1 << 53) - 1, -1)
    part = chip.part(
        "target" if what == "target" else "now",
        tile,
        slice(row0, row1),
        slice(column0, column1),
        MOST_VALUES,
        since,
    )
    about: dict[str, Any] = {
        "version": chip.version,
        "tile": tile,
        "row0": row0,
        "column0": column0,
        "rows": row1 - row0,
        "columns": column1 - column0,
        "block": part.block,
        "changed": None if part.at is None else len(part.at),
    }
    places = b"" if part.at is None else part.at.astype("<u4").tobytes()
    return places + part.values.astype("<f4").tobytes(), about


def _whole(query: QueryParams, name: str, low: int, high: int, default: int = 0) -> int:
    """A whole number of a query within its range, else the request is refused."""
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,16}", text, re.ASCII) or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}: a whole number in {low}..{high} is needed")
    return int(text)
