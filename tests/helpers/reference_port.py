"""The reference port of `firmware/` in QEMU, its UART on a TCP port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

from firmware_builds import built

from rram_hil.drivers.test_chip_board import TestChipBoard

MACHINE = "lm3s6965evb"
TRIES = 40


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a board that has just been switched on, and answers."""
    program = built("lm3s6965", "lm3s6965/board.elf")
    place = f"127.0.0.1:{_free_port()}"
    quiet = ["-nographic", "-monitor", "none", "-serial", f"tcp:{place},server=on,wait=off"]
    process = subprocess.Popen(
        ["qemu-system-arm", "-M", MACHINE, *quiet, "-kernel", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"socket://{place}"
    try:
        tries = 0
        while TestChipBoard.identify_at(address) is None:  # QEMU does not listen yet
            tries += 1
            assert tries < TRIES, address
            time.sleep(0.25)
        yield address
    finally:
        process.kill()
        process.wait()
