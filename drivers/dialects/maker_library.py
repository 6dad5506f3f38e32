"""What drivers share that reach their hardware through a library of its maker: its import when it
is needed, waits, readings, and how a failure ends.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import Span, Status, Wait, WaitResult
from rram_hil.errors import (
    AbortedError,
    ConfigError,
    InstrumentError,
    LinkError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Driver
from rram_hil.types import FloatArray


def library(name: str, needs: str, extra: str) -> Any:
    """A maker's package, imported now. Raises `ConfigError` with what is needed (`needs`) and the
    extra that brings it where it is not installed.
    """
    importer: Callable[[str], Any] = import_module
    try:
        return importer(name)
    except ImportError as error:
        raise ConfigError(f'{needs}: pip install "rram-hil[{extra}]" ({error})') from None


def worth(
    current: FloatArray, volts: FloatArray, over_a: float | None
) -> tuple[NDArray[np.uint8], FloatArray]:
    """Status and conductance (S) of currents (A) measured at these volts; from `over_a` on, where
    one is given, they are over range.
    """
    status = np.full(current.shape, Status.NOT_A_NUMBER, dtype=np.uint8)
    status[np.isfinite(current)] = Status.OK
    if over_a is not None:
        status[np.abs(current) >= over_a] = Status.OVER_RANGE
    conductance: FloatArray = np.full(current.shape, np.nan)
    np.divide(current, volts, out=conductance, where=status == Status.OK)
    return status, conductance


class LibraryDriver(Driver):
    """A bench behind a maker's library. `FAILURES` are the errors that tell how an operation ended;
    others leave as they are.
    """

    FAILURES: ClassVar[tuple[type[LinkError | InstrumentError], ...]] = (LinkError,)

    @staticmethod
    @abstractmethod
    def _failure(what: str, error: BaseException) -> BaseException:
        """An error of the library as one of the bench's; others as they are."""

    @abstractmethod
    def _grounded(self) -> tuple[bool, str]:
        """All off after a failure; whether outputs are off, and that as words for the error."""

    @contextlib.contextmanager
    def _off_on_failure(self, what: str, *, stresses: bool) -> Iterator[None]:
        """Whatever fails inside leaves outputs off, and the error says whether cells may have been
        pulsed.
        """
        try:
            yield
        except BaseException as error:
            is_off, off = self._grounded()
            if isinstance(error, AbortedError):
                raise AbortedError(f"{error}; {off}", outputs_off=is_off) from None
            failure = self._failure(what, error)
            if not isinstance(failure, self.FAILURES):
                raise
            if stresses:
                raise UnknownOutcomeError(
                    f"{failure}; {off}; {what} may have been carried out", outputs_off=is_off
                ) from error
            failure.message += f"; {off}; {what} gave no pulse and may be repeated"
            failure.outputs_off = is_off
            raise failure from error

    def _wait(self, operation: Wait) -> WaitResult:
        started = self.now_s()
        if self.cancel.wait(operation.seconds):
            raise AbortedError(
                f"a wait of {operation.seconds:g} s was aborted; nothing is driven during a wait"
            )
        return WaitResult(Span(started, self.now_s()))

    def _stop_if_cancelled(self, what: str) -> None:
        if self.cancel.is_set():
            raise AbortedError(f"{what} was aborted")
