"""What every server of a simulated bench does alike: take connections, for good, and lines that may
not grow without end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

RETRY_S = 0.1
TOKEN = "RRAM_HIL_CONTROL_TOKEN"
"""Environment variable: what control requests must bring; empty: nothing. Without it a token is
made where the machine is shared.
"""
PASSING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EINTR,
        errno.EAGAIN,
    }
)
"""Why a connection cannot be taken now and may be later: no file handle is left, say."""
PEOPLE = range(500, 60_000)
"""Numbers of the accounts of people."""


def accepted(listener: socket.socket) -> socket.socket | None:
    """The next connection of a listener; None, after a moment, where it cannot be taken now. Raises
    `OSError` once the listener is closed.
    """
    try:
        connection, _ = listener.accept()
    except OSError as error:
        if error.errno not in PASSING:
            raise
        time.sleep(RETRY_S)
        return None
    with contextlib.suppress(OSError):  # it may be gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def connections(listener: socket.socket) -> Iterator[socket.socket]:
    """Every connection that comes, until the listener is closed."""
    while True:
        try:
            connection = accepted(listener)
        except OSError:
            return
        if connection is not None:
            yield connection


def in_thread(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    """Serve a connection in a thread of its own; it is closed where no thread can be had."""
    try:
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
    except RuntimeError:
        connection.close()


def control_token() -> str:
    """What control requests must bring; empty where nothing is asked: on a machine of one person
    nobody else can connect to 127.0.0.1.
    """
    given = os.environ.get(TOKEN)
    if given is not None:
        return given
    return secrets.token_hex(16) if _is_shared() else ""


def _is_shared() -> bool:
    """Whether this account is a person's and another person has one, with a shell, too. In a
    container, or for the machine's own accounts, root among them, it is not.
    """
    if sys.platform == "win32" or os.getuid() not in PEOPLE:
        return False
    import pwd

    return any(
        account.pw_uid in PEOPLE
        and account.pw_uid != os.getuid()
        and not account.pw_shell.endswith(("nologin", "false"))
        for account in pwd.getpwall()
    )
