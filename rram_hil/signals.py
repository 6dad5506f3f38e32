"""The signals that stop what runs in good order, outputs off."""

from __future__ import annotations

import signal


def stopping() -> list[signal.Signals]:
    """Ctrl-C, the request to end, and what a terminal sends when it is closed or its connection is
    lost, unless that is ignored, as `nohup` has it.
    """
    found = [signal.SIGINT, signal.SIGTERM]
    for name in ("SIGHUP", "SIGBREAK"):  # the first is POSIX's, the second Windows'
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            found.append(number)
    return found
