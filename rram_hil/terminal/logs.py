"""What the loggers of the package tell, on the terminal and in a file. The journal is the record of
a run; a log is for whoever looks for what went on around it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rram_hil.errors import ConfigError, printable

_ROOT = "rram_hil"
_TRAFFIC = "rram_hil.wire.traffic"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Lines(logging.Formatter):
    """One line a record, in UTC; what came from an instrument stands as its escapes."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return printable(" ".join(super().format(record).split("\n")))


class _Terminal(logging.StreamHandler[TextIO]):
    """Standard error as it is when something is told: progress bars stand in for it for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def logs(verbosity: int, file: Path | None) -> Iterator[None]:
    """Meanwhile the package's loggers are heard: on standard error with `verbosity` 1 what happens,
    with 2 every operation, with 3 also what goes over the links; in `file`, added to its end, every
    operation, and the links with 3. Raises `ConfigError` where it cannot be written.
    """
    root = logging.getLogger(_ROOT)
    handlers: list[logging.Handler] = []
    if verbosity:
        terminal = _Terminal()
        terminal.setLevel(_LEVELS[min(verbosity, 2)])
        handlers.append(terminal)
    if file is not None:
        from rram_hil.storage.run_state import is_record

        if is_record(file):
            raise ConfigError(f"--log-file {file}: a run file or journal; give another name")
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"--log-file {file}: {error.strerror or error}") from None
    for handler in handlers:
        handler.setFormatter(_Lines())
        root.addHandler(handler)
    traffic = logging.getLogger(_TRAFFIC)
    before = root.level, traffic.level
    if handlers:
        root.setLevel(logging.DEBUG if file is not None else _LEVELS[min(verbosity, 2)])
        traffic.setLevel(logging.DEBUG if verbosity > 2 else logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip((root, traffic), before, strict=True):
            logger.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
