"""Starting the page's server, and ending it."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rram_hil.errors import ConfigError
from rram_hil.plugins import need_extra

if TYPE_CHECKING:
    import uvicorn

    from rram_hil.watch.server import Page

HOST = "127.0.0.1"
PORT = 8765
"""Where it is free; else any port that is."""
LINGERS_S = 60.0
"""So long after its run ended, and after its last page was closed, a page that came with a run
ends.
"""
STARTS_S = 20.0


PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn"}
"""Of the extra."""


def serve_page(
    place: Path,
    *,
    port: int | None,
    opens: bool,
    say: Callable[[str], None],
    lingers_s: float | None = None,
) -> None:
    """Serve the page of the runs at `place` until Ctrl-C or SIGTERM; `say` is given its address,
    and then what could not be read.

    With `lingers_s` standard input is a pipe from the process that runs: the run may not have begun
    yet, and the server ends so long after that process did and the last page was closed.

    Raises `ConfigError` for a place that is not there, a port that is taken, and where the extra is
    missing.
    """
    need_extra("watch", "watch", PACKAGES)
    import uvicorn

    from rram_hil.watch.planned import get_ready
    from rram_hil.watch.runs import Runs
    from rram_hil.watch.server import Keeper, Page

    runs = Runs(place, wait=lingers_s is not None)
    keeper = Keeper(secrets.token_urlsafe(32))
    with _listening(port) as listener:
        at = f"http://{HOST}:{listener.getsockname()[1]}/"
        page = Page(runs, keeper, lambda: server.should_exit)
        server = uvicorn.Server(
            uvicorn.Config(
                page.app(),
                log_config=None,
                # Warnings are of requests that anyone may send: none belongs on this terminal.
                log_level="error",
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        say(f"{at}?token={keeper.token}")
        for line in runs.unreadable:
            say(f"Left out: {line}")
        if opens and _has_display():
            webbrowser.open(f"{at}?token={keeper.once()}")
        threading.Thread(target=get_ready, daemon=True).start()
        if lingers_s is not None:
            _give_way()
            ends = threading.Thread(
                target=_end_after_run, args=(server, page, lingers_s), daemon=True
            )
            ends.start()
        server.run(sockets=[listener])


def _listening(port: int | None) -> socket.socket:
    """A socket on this machine alone. Raises `ConfigError` for a port that is taken."""
    for wanted in (PORT, 0) if port is None else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            listener.listen(64)
        except OSError as error:
            listener.close()
            said = error.strerror or error
        else:
            return listener
    raise ConfigError(f"--port {port}: {said}; give another one, or 0 for any that is free")


def _has_display() -> bool:
    """Whether a browser would have a screen: on a machine without one a text browser would take the
    terminal.
    """
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _give_way() -> None:
    """Let the run have the processor where both want it."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(5)


def _end_after_run(server: uvicorn.Server, page: Page, lingers_s: float) -> None:
    """End the server some time after the other end of standard input is gone."""
    while sys.stdin.buffer.read(1):
        pass
    seen_s = time.monotonic()
    while time.monotonic() - seen_s < lingers_s:
        if page.open_pages:
            seen_s = time.monotonic()
        time.sleep(0.5)
    server.should_exit = True


class PageOfRun:
    """The page of a run that is about to begin, served by a `process` of its own, which outlives
    the run: so its end can be looked at. `said` is its address, or why there is none.
    """

    def __init__(self, run_file: Path, *, opens: bool = True, lingers_s: float = LINGERS_S) -> None:
        need_extra("watch", "watch", PACKAGES)
        command = [sys.executable, "-P", "-m", "rram_hil.cli", "watch", str(run_file)]
        command += ["--open" if opens else "--no-open", "--with-run", str(lingers_s)]
        # A session of its own: Ctrl-C is for the run, whose end the page shows.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            self.said = lines.get(timeout=STARTS_S)
        except queue.Empty:
            self.said = "The page is late; the run does not wait for it."

    def _read(self, lines: queue.SimpleQueue[str]) -> None:
        """Take what the process says, so that it never waits for that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.put(line.decode(errors="replace").strip())

    def leave(self) -> None:
        """The run is over; a process that ends says so as well."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
