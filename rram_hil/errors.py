"""The errors of the package: one small tree, each saying what was tried, on what, and what to
do.
"""


class BenchError(Exception):
    """Anything that stops work on the bench. The command line prints it in one line and exits with
    2.
    """


class ConfigError(BenchError):
    """A bench file, recipe or argument is wrong: names the key, the value and what is allowed."""


class LimitError(BenchError):
    """An operation was refused before any output moved: names the cell, the line, the value, the
    limit.
    """


class LinkError(BenchError):
    """The link to an instrument failed: timeout, disconnect, framing or checksum."""


class UnknownOutcomeError(LinkError):
    """The link failed while an operation was under way: it may or may not have been carried out."""


class InstrumentError(BenchError):
    """An instrument reported an error: its code, its text and the command that caused it."""

    def __init__(self, message: str, *, code: int = 0, command: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.command = command


class DataError(BenchError):
    """A file or an array holds something unusable: NaN weights, a foreign run file, a damaged
    journal.
    """


class AbortedError(BenchError):
    """The operator stopped the run (Ctrl-C, SIGTERM, `bench.abort()`); outputs are off, the journal
    is whole.
    """
