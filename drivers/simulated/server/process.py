"""A simulator in a process of its own: started with one line of JSON, answering with one, ending
when its parent does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rram_hil.errors import ConfigError
from rram_hil.hardware.far_side import FarSideRequest

START_S = 60.0


@dataclass(frozen=True)
class Started:
    """A running process: what it answered, how to end it (safe to call twice), whether it still
    runs.
    """

    answer: dict[str, Any]
    stop: Callable[[], None]
    is_running: Callable[[], bool]


def start(module: str, request: FarSideRequest, what: str) -> Started:
    """Run `module` as a process with this request; `what` it is. Raises `ConfigError` with its
    words if it does not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    requests, answers = process.stdin, process.stdout
    assert requests is not None
    assert answers is not None
    configuration = {
        "simulation": request.simulation.model_dump(),
        "geometry": asdict(request.geometry),
        "limits": request.limits.model_dump(),
        "chip_id": request.chip_id,
        "folder": str(request.folder.resolve()),
        "settings": request.settings,
    }
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        with contextlib.suppress(OSError):
            requests.write(json.dumps(configuration).encode() + b"\n")
            requests.flush()
        line = answers.readline()
    except BaseException:
        process.kill()  # it would end by itself, with a traceback about its empty input
        raise
    finally:
        timer.cancel()
    answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended at once"}

    def stop() -> None:
        with contextlib.suppress(OSError):
            requests.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answers.close()

    if "error" in answer:
        stop()
        raise ConfigError(f"[simulation]: the simulated {what} did not start: {answer['error']}")
    return Started(answer, stop, lambda: process.poll() is None)


def configuration() -> dict[str, Any]:
    """In the process: what it was started with. Ctrl-C is left to the parent, which needs the far
    side to make it safe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    return given


def answer(**addresses: str) -> None:
    """In the process: say where it can be reached, or `error`."""
    print(json.dumps(addresses), flush=True)


def end_with_parent(last: Callable[[], None]) -> None:
    """When standard input ends, which it does with the parent: `last`, then end the process. In a
    thread of its own.
    """

    def wait() -> None:
        sys.stdin.read()
        last()
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()
