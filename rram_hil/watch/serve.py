"""Starting the page's server, and ending it."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rram_hil.errors import ConfigError

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


def need_extra() -> None:
    """Raise `ConfigError` where a package of the extra is missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"watch needs {' and '.join(missing)}: pip install 'rram-hil[watch]'")


def serve_page(
    place: Path,
    *,
    port: int | None,
    opens: bool,
    say: Callable[[str], None],
    with_run: bool = False,
) -> None:
    """Serve the page of the runs at `place` until Ctrl-C or SIGTERM; `say` is given its address.

    With `with_run` standard input is a pipe from the process that runs: the run may not have begun
    yet, and the server ends some time after that process did. Raises `ConfigError` for a place that
    is not there, a port that is taken, and where the extra is missing.
    """
    need_extra()
    import uvicorn

    from rram_hil.watch.planned import get_ready
    from rram_hil.watch.runs import Runs
    from rram_hil.watch.server import Keeper, Page

    runs = Runs(place, wait=with_run)
    keeper = Keeper(secrets.token_urlsafe(32))
    with _listening(port) as listener:
        at = f"http://{HOST}:{listener.getsockname()[1]}/"
        page = Page(runs, keeper, lambda: server.should_exit)
        server = uvicorn.Server(
            uvicorn.Config(
                page.app(),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        say(f"{at}?token={keeper.token}")
        if opens and _has_display():
            webbrowser.open(f"{at}?token={keeper.once()}")
        threading.Thread(target=get_ready, daemon=True).start()
        if with_run:
            _give_way()
            threading.Thread(target=_end_after_run, args=(server, page), daemon=True).start()
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


def _end_after_run(server: uvicorn.Server, page: Page) -> None:
    """End the server some time after the other end of standard input is gone."""
    while sys.stdin.buffer.read(1):
        pass
    seen_s = time.monotonic()
    while time.monotonic() - seen_s < LINGERS_S:
        if page.open_pages:
            seen_s = time.monotonic()
        time.sleep(0.5)
    server.should_exit = True


class PageOfRun:
    """The page of a run that is about to begin, served by a process of its own, which outlives the
    run for a while: so a page can be looked at until it is closed. `said` is its address, or why
    there is none.
    """

    def __init__(self, run_file: Path) -> None:
        need_extra()
        command = [sys.executable, "-m", "rram_hil.cli", "watch", str(run_file), "--with-run"]
        # A session of its own: Ctrl-C is for the run, whose end the page shows.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.said = self._first_line()

    def _first_line(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        if sys.platform != "win32":
            ready, _, _ = select.select([stdout], [], [], STARTS_S)
            if not ready:
                return "the page is late; it is not waited for"
        with contextlib.suppress(OSError):
            return stdout.readline().decode(errors="replace").strip()
        return ""
