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
from pathlib import Path
from typing import Any

from rram_hil.array import Geometry, Limits
from rram_hil.errors import BenchError, ConfigError
from rram_hil.hardware.far_side import FarSideRequest
from rram_hil.simulation.config import Simulation

from .control import ControlServer
from .far_side import FarSide
from .listening import control_token

START_S = 240.0
"""How long a simulator may take to start: the first one on a machine compiles its cells' laws."""
GONE_S = 1.0
"""How long a driver waits for a simulated far side that is gone: a process that has ended does not
come back.
"""
PATIENCE_S = 5.0
"""How long a simulated instrument's silence is borne where the bench file does not say: a computer
at work answers late, and nothing is at stake meanwhile. A real one is looked for after 2 s, for
until then its outputs and its neighbours' may be on (docs/instruments.md).
"""


@dataclass(frozen=True)
class Started:
    """A running process: what it answered, how to end it (safe to call twice), whether it still
    runs.
    """

    answer: dict[str, Any]
    stop: Callable[[], None]
    is_running: Callable[[], bool]


def python_process(module: str) -> subprocess.Popen[bytes]:
    """A Python process that runs `module`, with pipes for its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def start(module: str, request: FarSideRequest, what: str) -> Started:
    """Run `module` as a process with this request; `what` it is. Raises `ConfigError` with its
    words if it does not start.
    """
    process = python_process(module)
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


def serve(build: Callable[[FarSideRequest], FarSide]) -> None:
    """The process: what it is started with from standard input, addresses to standard output, then
    serve, until the parent ends and standard input with it.
    """
    # Ctrl-C reaches the whole group; the host needs the far side to make the chip safe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given = json.loads(sys.stdin.readline())
    try:
        request = FarSideRequest(
            Simulation.model_validate(given["simulation"]),
            Geometry(**given["geometry"]),
            Limits.model_validate(given["limits"]),
            given["chip_id"],
            Path(given["folder"]),
            given["settings"],
        )
        far_side = build(request)
    except (BenchError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    addresses = far_side.addresses | {
        "control": ControlServer(far_side.control, control_token()).address
    }
    threading.Thread(target=_end_with_parent, args=(far_side,), name="parent", daemon=True).start()
    print(json.dumps(addresses), flush=True)
    far_side.serve()


def _end_with_parent(far_side: FarSide) -> None:
    sys.stdin.read()
    far_side.close()
    os._exit(0)
