"""Simulators as forks of one process of a test worker, which has imported them and loaded their
cells' compiled laws: a start costs hundredths of a second of the processor, not more than one.

What a test starts as a program of its own (`rram-hil ...`) starts its simulators as users do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import cast

import pytest
from typing_extensions import override

from rram_hil.drivers.simulated.server import process

_BYTES = 1 << 20


class Fork(subprocess.Popen[bytes]):
    """A child of the stock, as `subprocess` has its own; nobody is told how it ended."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.returncode = None
        self.stdin = os.fdopen(stdin, "wb", 0)
        self.stdout = os.fdopen(stdout, "rb")
        try:
            self._ends = os.pidfd_open(pid)
        except ProcessLookupError:
            self.returncode = 0
        self._child_created = False  # not to be waited for by `subprocess`

    @override
    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ends], [], [], 0)[0]:
            self._ended()
        return self.returncode

    @override
    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ends], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a simulator", cast(float, timeout))
            self._ended()
        return cast(int, self.returncode)

    @override
    def kill(self) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._ends, signal.SIGKILL)

    def _ended(self) -> None:
        os.close(self._ends)
        self.returncode = 0


class Stock:
    """The process that is forked, started when it is first asked for."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None

    def fork(self, module: str) -> Fork:
        """A process that runs `module` in this one's folder and environment."""
        link = self._started()
        (child_in, stdin), (stdout, child_out) = os.pipe(), os.pipe()
        asked = json.dumps([module, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(link, [asked], [child_in, child_out, 2])
        os.close(child_in)
        os.close(child_out)
        return Fork(int(link.recv(64)), stdin, stdout)

    def _started(self) -> socket.socket:
        if self._link is None:
            self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (self._link, other):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BYTES)
            with other:
                subprocess.Popen(
                    [sys.executable, "-P", __file__, str(other.fileno())],
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            atexit.register(self._link.close)
        return self._link


@pytest.fixture(scope="session", autouse=True)
def _forked_simulators() -> Iterator[None]:
    """Every simulator of this process is a fork, where the system has what that takes."""
    if not hasattr(os, "pidfd_open"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "python_process", Stock().fork)
        yield


def _serve(link: socket.socket) -> None:
    """Fork whenever asked, until the tests' process is gone."""
    for entry in entry_points(group="rram_hil.simulated_instruments"):
        entry.load()
    for entry in entry_points(group="rram_hil.simulators"):
        entry.load()
    _load_laws()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they are not waited for
    while True:
        asked, files, _, _ = socket.recv_fds(link, _BYTES, 3)
        if not asked:
            return
        pid = os.fork()
        if pid == 0:
            link.close()
            _run(*json.loads(asked), files)
        for file in files:
            os.close(file)
        link.send(str(pid).encode())


def _load_laws() -> None:
    """Let a chip of each kind of device take a pulse and be read."""
    from rram_hil.array import Cells, Geometry, pulse, read
    from rram_hil.simulation.chip import SimulatedChip
    from rram_hil.simulation.config import Simulation

    for device in ("paper", "hfo2-measured"):
        chip = SimulatedChip(
            Geometry(1, 2, 2), Simulation(device=device), read_v=0.2, chip_id="none"
        )
        cells = Cells.all(chip.geometry)
        chip.execute(pulse(cells, bl_v=1.0, wl_v=2.0, width_s=1e-6, read=None), 1)
        chip.execute(pulse(cells, sl_v=1.0, wl_v=2.0, width_s=1e-6, read=None), 2)
        chip.execute(read(cells), 3)


def _run(module: str, folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Become a process that runs `module`."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        del sys.modules[module]  # it runs as `__main__`, and would be there twice
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
