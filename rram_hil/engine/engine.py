"""The one engine that runs operations and protocols: limits, ledger, journal, driver, journal, and
back.

Here live safety, logging, resuming and aborting, and nowhere else. The order of each operation that
can stress a cell: check every limit; charge the ledger with the worst case; write the intent and
sync; let the driver carry it out at most once; write the result and sync; give the surplus back to
the ledger. Killed at any point, the ledger is never too low.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any, TypeVar, cast

import numpy as np

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Charge,
    Geometry,
    Limits,
    Operation,
    Program,
    ProgramResult,
    Request,
    Result,
    SoFar,
    Status,
    WriteWords,
    check,
    drive,
)
from rram_hil.array.result_checks import sound
from rram_hil.corrections.correction import Correction
from rram_hil.engine.climate import Climate
from rram_hil.engine.lowering import lower
from rram_hil.engine.plausible import plausible
from rram_hil.engine.protocol import (
    Arrays,
    Compute,
    HoldTemperature,
    Message,
    Plan,
    Progress,
    ReadTemperature,
    Remark,
    Save,
    TemperatureCourse,
)
from rram_hil.engine.replay import InFlight, Replay
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    DataError,
    ImpossibleResultError,
    InstrumentError,
    LimitError,
    LinkError,
    ProtocolError,
    UnknownOutcomeError,
)
from rram_hil.hardware.driver import Driver
from rram_hil.signals import stopping
from rram_hil.storage.codec import operation_record, result_record
from rram_hil.storage.frames import (
    TEMPERATURE,
    Aside,
    Computed,
    Failed,
    Frame,
    Intent,
    Note,
    Outcome,
    Saved,
    StepEnd,
    StepStart,
)
from rram_hil.storage.journal import Journal
from rram_hil.storage.ledger import Ledger
from rram_hil.types import IntArray
from rram_hil.units import count

R = TypeVar("R", bound=Result)
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Watcher:
    """Sees what the engine does, as it does it; every method may be overridden. The base one looks
    away.
    """

    def step(self, name: str, index: int, total: int) -> None:
        """A step of a recipe begins."""

    def progress(self, done: float, total: float, text: str) -> None:
        """The protocol says how far it is."""

    def operation(self, operation: Operation, result: Result, charge: Charge) -> None:
        """One native operation was carried out."""

    def note(self, text: str) -> None:
        """Something worth telling: resumed, interrupted, aborted."""


class Engine:
    """Runs operations on one armed driver.

    Without a journal nothing is kept but the ledger; with a `replay`, messages are answered from an
    earlier journal of the same run until that is used up.
    """

    def __init__(
        self,
        driver: Driver,
        geometry: Geometry,
        limits: Limits,
        ledger: Ledger | None,
        journal: Journal | None = None,
        replay: Replay | None = None,
        watcher: Watcher | None = None,
        correction: Correction | None = None,
        climate: Climate | None = None,
    ) -> None:
        self.driver = driver
        self.geometry = geometry
        self.limits = limits
        self.ledger = ledger
        self.journal = journal
        self.replay = replay
        self.watcher = watcher or Watcher()
        self.correction = correction or Correction()
        self.climate = climate
        self._charged = 0
        if journal is not None and ledger is not None:
            ledger.begin(journal)
            if replay is not None:
                standing = ledger.standing(journal, pulsed=replay.last_pulsed > 0)
                self._charged = standing.charged
        replayed = 0 if replay is None else replay.last_number
        self._number = max(driver.last_number(), replayed, self._charged)
        self._words: list[WriteWords] = []
        self._kept_at: HoldTemperature | None = None
        self._is_adrift = False
        self._inside_protocol = False
        self._step = 0
        self._protocol = ""
        self._aside = ""

    @property
    def number(self) -> int:
        """The number of the last operation, of this engine or one before it."""
        return self._number

    def do(self, operation: Request[R]) -> R:
        """Carry out one operation on the whole bench, lowered to what the hardware has.

        Raises `LimitError` or `ConfigError` before any output moves; `LinkError`, `InstrumentError`
        or `AbortedError` with outputs off.
        """
        if not isinstance(operation, Operation):
            raise ConfigError(
                f"a {type(operation).__name__} is no operation; read(...), pulse(...) and"
                " sweep(...) make some"
            )
        charge = self._checked(operation)
        self._within_life(charge)
        # What the host decodes comes from multiplies that know nothing of each other: only the
        # whole map can be freed of its wires.
        freed = self.correction.freed_of_wires
        natives = lower(operation, self.driver.capabilities, self.limits, freed)
        return cast(R, drive(natives, self._native))

    def run(self, plan: Plan[T]) -> T:
        """Run a protocol to its end and return what it returns.

        A `BenchError` of an operation is thrown into the protocol, which may handle it; else it
        ends the run.
        """
        if not isinstance(plan, Generator):
            raise ConfigError(
                "a protocol's run must yield its operations and receive their results; this one"
                f" returned a {type(plan).__name__}"
            )
        answer: object = None
        error: BenchError | None = None
        try:
            while True:
                self._stop_if_cancelled()
                with self._protocol_code():
                    message = plan.send(answer) if error is None else plan.throw(error)
                answer, error = None, None
                try:
                    answer = self._answer(message)
                except (AbortedError, DataError, ImpossibleResultError):
                    # What cannot be kept or believed must not go on: a full disk is not for the
                    # protocol to handle.
                    raise
                except BenchError as failure:
                    error = failure
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            plan.close()

    def step(
        self, number: int, name: str, protocol: str, version: int, plan: Callable[[], Plan[T]]
    ) -> T:
        """Run one step of a recipe (numbered from 1): `plan` between its marks in the journal.

        A `BenchError` leaves it with the step as its attributes; what else the protocol raises
        becomes a `ProtocolError`.
        """
        self._step, self._protocol = number, protocol
        _log.info("step %d, %s (%s), begins", number, name, protocol)
        try:
            start = StepStart(number, name, protocol, str(version), self.driver.now_s())
            if self.replay is None or not self.replay.step_started(start):
                self._go_live()
                self._write(start, sync=True)
            with self._protocol_code():
                messages = plan()
            outcome = self.run(messages)
            if self.replay is None or not self.replay.step_ended(number):
                self._go_live()
                self._write(StepEnd(number, self.driver.now_s()), sync=True)
        except AbortedError:
            raise
        except BenchError as error:
            error.step, error.step_name = number, name
            raise
        _log.info("step %d, %s, ended", number, name)
        self._step = 0
        return outcome

    def _answer(self, message: Message) -> object:
        if isinstance(message, Progress):
            self.watcher.progress(message.done, message.total, message.text)
            return None
        if isinstance(message, Remark):
            if self.replay is None:  # else the journal has it
                self._say(message.text)
                self._write(Note("info", message.text, "", self.driver.now_s()), sync=False)
            return None
        if isinstance(message, Save):
            values = np.asarray(message.values)
            if self.replay is None or not self.replay.saved(message.name, values):
                self._go_live()
                attrs, now_s = dict(message.attrs), self.driver.now_s()
                if self.climate is not None:
                    attrs[TEMPERATURE] = self.climate.temperature_k()
                saved = Saved(
                    self._step, message.name, values, message.dims, message.units, attrs, now_s
                )
                self._write(saved, sync=True)
            return None
        if isinstance(message, Compute):
            return self._compute(message)
        if isinstance(message, HoldTemperature):
            return self._hold(message)
        if isinstance(message, ReadTemperature):
            return self._temperature_k()
        return self.do(message)

    def _hold(self, wanted: HoldTemperature) -> TemperatureCourse:
        climate = self.climate
        if climate is None:
            raise ConfigError(
                f"a temperature of {wanted.kelvin:g} K needs a thermostat, and this bench has none:"
                " describe it in [thermostat] of the bench file"
            )
        climate.check(wanted)
        self._is_adrift = False
        self._kept_at = None  # a resumed run that was cut on the way here goes to this one at once
        arrays = self._compute(
            Compute("temperature", lambda do: climate.settle(wanted, do, self.driver.now_s))
        )
        self._kept_at = wanted
        return TemperatureCourse(arrays["time_s"], arrays["temperature_k"])

    def _temperature_k(self) -> float:
        climate = self.climate
        if climate is None:
            return math.nan
        reading = Compute("temperature now", lambda _: {"now": np.array(climate.temperature_k())})
        return float(self._compute(reading)["now"])

    def _compute(self, message: Compute) -> Arrays:
        if self.replay is not None:
            kept = self.replay.computed(message.name)
            if kept is not None:
                return kept
        self._go_live()
        self._aside = message.name
        try:
            with self._protocol_code():
                # As a replay will give them back, so that a resumed run goes the same way.
                arrays = {
                    name: np.asarray(values)
                    for name, values in message.function(self._do_aside).items()
                }
        finally:
            self._aside = ""
        self._write(Computed(self._step, message.name, arrays), sync=True)
        return arrays

    def _do_aside(self, operation: Request[R]) -> R:
        assert isinstance(operation, Operation)
        charge = self._checked(operation)
        if charge.stresses:
            raise ConfigError(
                "a computation may only read, multiply, write on-chip words and wait: this would"
                " stress cells"
            )
        with self._held():
            result = self.do(operation)
        self._stop_if_cancelled()
        return cast(R, result)

    def _checked(self, operation: Operation) -> Charge:
        return check(
            operation,
            self.geometry,
            self.limits,
            bounds_current=self.driver.capabilities.compliance,
            peaks=self.driver.peaks,
        )

    def _within_life(self, charge: Charge) -> None:
        """Refuse an operation that could wear a cell beyond its limit, before any part of it
        runs.
        """
        if self.replay is not None:
            # The ledger is ahead of a replayed operation: what was refused then is refused again,
            # nothing else.
            self.replay.refusal()
            if not self.replay.is_used_up:
                return
            self._go_live()
        if self.ledger is None:
            return
        try:
            self.ledger.check(*charge.everywhere)
        except LimitError as error:
            self._write(Failed.of(0, error), sync=True)
            raise

    def _native(self, operation: Operation) -> Result:
        charge = self._checked(operation)
        stresses = charge.stresses
        self._stop_if_cancelled()
        if self._is_adrift:
            self._back_to_temperature()
        if self.replay is not None:
            kept = self.replay.operation(operation)
            if isinstance(kept, InFlight):
                self._go_live()
                return self._finish_in_flight(operation, kept, charge, stresses)
            if kept is not None:
                self._remember_words(operation)
                return kept
            self._go_live()
        if stresses and self._charged:
            lost, self._charged = self._charged, 0
            told = self.driver.executed(lost, charge.cells)
            if told is None or np.any(told):
                # Charged, but the journal has no intent of it: the run was cut between the two, or
                # the journal lost its end. What may have been carried out is not done again.
                self._announce(operation, lost, charge, stresses)
                in_flight = InFlight(lost, self.driver.now_s())
                return self._finish_in_flight(operation, in_flight, charge, stresses)
        number = self._next_number()
        self._announce(operation, number, charge, stresses)
        return self._finish(
            operation, number, self._execute(operation, number, charge), charge, stresses
        )

    def _announce(self, operation: Operation, number: int, charge: Charge, stresses: bool) -> None:
        """Charge an operation and write its intent: from here on it may be under way."""
        if self.ledger is not None:
            self.ledger.operation = number
            self.ledger.charge(*charge.everywhere)
        if not self._aside:
            record = operation_record(operation)
            self._write(
                Intent(number, self._step, record, charge.pulses, self.driver.now_s()),
                sync=stresses,
            )

    def _finish(
        self, operation: Operation, number: int, result: Result, charge: Charge, stresses: bool
    ) -> Result:
        """Keep a result. One that an abort may have cut short is kept only as far as it stressed
        cells.
        """
        if self.driver.cancel.is_set():
            # A resumed run must not take what was cut for the whole: harmless operations are then
            # repeated, the cells of others are known by their pulses and read again.
            if stresses and isinstance(result, ApplyResult | ProgramResult):
                self._keep(
                    operation,
                    number,
                    unknown_result(operation, result.pulses, 0.0),
                    charge,
                    stresses,
                )
            self._stop_if_cancelled()
        self._keep(operation, number, result, charge, stresses)
        return result

    def _execute(self, operation: Operation, number: int, charge: Charge) -> Result:
        done = False
        try:
            with self._held():
                native = self.correction.outgoing(operation, self.driver.reading_paths)
                told = self.driver.execute(native, number)
                done = True
                believed = self._believed(native, sound(native, told, number), number, charge)
                return self.correction.incoming(operation, believed, self.driver.reading_paths)
        except (ConfigError, LimitError) as error:
            if not self._aside:
                self._write(Failed.of(number, error), sync=True)
            # A driver refuses before anything moves: no cell has taken a pulse. Once it has
            # answered, cells may have.
            if self.ledger is not None and not done:
                self.ledger.correct(*charge.everywhere)
            raise
        except (LinkError, InstrumentError) as error:
            if isinstance(error, UnknownOutcomeError):
                if charge.stresses:
                    return self._lost(operation, number, charge, error)
                # Nothing to be careful of, and a reading that nobody has must not pass for an
                # unreadable cell.
                error = UnknownOutcomeError(
                    f"{error.message}; it stresses no cell: run with --resume to repeat it",
                    where=error.where,
                )
            # The charge stays: what the cells took is not known. A protocol may handle this, so it
            # is kept for a replay.
            if not self._aside:
                self._write(Failed.of(number, error), sync=True)
            raise error

    def _believed(
        self, operation: Operation, result: Result, number: int, charge: Charge
    ) -> Result:
        """A result that can be, suspicious readings marked and said. Raises
        `ImpossibleResultError`; where it tells of more pulses than were charged, so many count.
        """
        try:
            believed, said = plausible(
                operation,
                result,
                number,
                self.limits,
                self.driver.capabilities,
                is_cut=self.driver.cancel.is_set(),
            )
        except ImpossibleResultError:
            if self.ledger is not None and isinstance(result, ApplyResult | ProgramResult):
                beyond = np.maximum(result.pulses - charge.pulses, 0)
                self.ledger.correct(charge.cells, -beyond)
            raise
        if said:
            self._say(said)
        return believed

    def _lost(
        self, operation: Operation, number: int, charge: Charge, error: UnknownOutcomeError
    ) -> Result:
        """What is known of an operation whose end was lost: the part that its driver was told of,
        else what the hardware has counted.
        """
        so_far = error.so_far
        if not isinstance(so_far, SoFar):
            result, in_doubt = self._unknown(operation, number, charge, away_s=0.0)
        else:
            native = self.correction.outgoing(operation, self.driver.reading_paths)
            told = sound(native, so_far.result, number)
            part = self.correction.incoming(operation, told, self.driver.reading_paths)
            assert isinstance(part, ApplyResult)
            in_doubt = so_far.in_doubt
            result = replace(part, pulses=part.pulses + in_doubt, interrupted=True)
        self._say_cut(f"operation {number}: {error}", charge, in_doubt)
        return result

    def _unknown(
        self, operation: Operation, number: int, charge: Charge, away_s: float
    ) -> tuple[Result, IntArray]:
        """What to tell the protocol of an operation of which nothing was told: charged with what
        the hardware knows, at its worst where it knows nothing; and those pulses, (n,).
        """
        told = self.driver.executed(number, charge.cells)
        counted = np.full(charge.pulses.shape, -1) if told is None else told
        in_doubt = np.where(counted < 0, charge.pulses, 0)
        return unknown_result(operation, np.maximum(counted, in_doubt), away_s), in_doubt

    def _say_cut(self, text: str, charge: Charge, in_doubt: IntArray) -> None:
        """Tell of an operation that was cut, also in the run file, and what its cells are charged
        with.
        """
        doubtful = charge.cells[np.flatnonzero(in_doubt)]
        of_these = (
            f"{count(len(doubtful))} of {count(len(charge.cells))} cells are charged with"
            f" {count(int(in_doubt.sum()))} pulses that may not have been given, {doubtful!r}"
            if len(doubtful)
            else "every pulse that was given is known"
        )
        told = f"{text}; {of_these}; readings that are missing are taken again"
        self._say(told)
        self._write(Note("interrupted", told, "", self.driver.now_s()), sync=False)

    def _finish_in_flight(
        self, operation: Operation, lost: InFlight, charge: Charge, stresses: bool
    ) -> Result:
        """The operation that was under way when the run was cut: repeated if harmless, else
        declared unknown.
        """
        if stresses:
            away_s = max(0.0, self.driver.now_s() - lost.time_s)
            result, in_doubt = self._unknown(operation, lost.number, charge, away_s)
            cut = f"operation {lost.number} was cut {away_s:.3g} s ago (bench clock)"
            self._say_cut(cut, charge, in_doubt)
        else:
            result = self._execute(operation, self._next_number(), charge)
        return self._finish(operation, lost.number, result, charge, stresses)

    def _keep(
        self, operation: Operation, number: int, result: Result, charge: Charge, stresses: bool
    ) -> None:
        if self._aside:
            told, answer = (
                operation_record(operation, summary=True),
                result_record(result, summary=True),
            )
            self._write(Aside(number, self._step, self._aside, told, answer), sync=False)
        else:
            self._write(Outcome(number, result_record(result)), sync=stresses)
        if self.ledger is not None and isinstance(result, ApplyResult | ProgramResult):
            self.ledger.correct(charge.cells, charge.pulses - result.pulses)
        self._remember_words(operation)
        kind, cells = type(operation).__name__, len(charge.cells)
        _log.debug("operation %d: %s; it could stress %d cells", number, kind, cells)
        self.watcher.operation(operation, result, charge)

    def _say(self, text: str) -> None:
        """Tell whoever watches, and the log."""
        _log.info(text)
        self.watcher.note(text)

    def _write(self, frame: Frame, *, sync: bool) -> None:
        if self.journal is not None:
            self.journal.append(frame)
            if sync:
                self.journal.sync()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _go_live(self) -> None:
        """The journal of the earlier run is used up: from here on everything is real."""
        if self.replay is None:
            return
        self.replay.must_be_empty()
        self.replay = None
        self._say("resumed")
        self._back_to_temperature()
        # On-chip words are lost when the chip loses power; storing them again is harmless.
        nothing = Charge(Cells.of([]), np.zeros(0, dtype=np.int64))
        for words in self._words:
            self._execute(words, self._next_number(), nothing)

    def lose_temperature(self, *, for_good: bool) -> None:
        """The thermostat was switched off: the next operation first comes back to the temperature
        that was asked for last, unless it is gone for good.
        """
        self._is_adrift = True
        if for_good:
            self._kept_at = None

    def _back_to_temperature(self) -> None:
        """What follows was to be done at the temperature that was asked for last."""
        self._is_adrift = False
        if self._kept_at is None or self.climate is None:
            return
        self._say(f"back to {self._kept_at.kelvin:g} K")
        before, self._aside = self._aside, "temperature"
        try:
            self.climate.settle(self._kept_at, self._do_aside, self.driver.now_s)
        finally:
            self._aside = before

    def _remember_words(self, operation: Operation) -> None:
        if isinstance(operation, WriteWords):
            if operation.clear:
                self._words.clear()
            self._words.append(operation)

    def _stop_if_cancelled(self) -> None:
        if self.driver.cancel.is_set():
            raise AbortedError("aborted by the operator; outputs are off", outputs_off=True)

    @contextmanager
    def _protocol_code(self) -> Iterator[None]:
        before, self._inside_protocol = self._inside_protocol, True
        try:
            yield
        except (BenchError, StopIteration):
            raise
        except Exception as error:
            if not self._step:
                raise  # of a plan that the caller wrote: the exception is the caller's own
            raise ProtocolError.of(error, self._protocol, __file__) from error
        finally:
            self._inside_protocol = before

    @contextmanager
    def _held(self) -> Iterator[None]:
        """An abort waits: the driver sees `cancel` and comes back by itself."""
        before, self._inside_protocol = self._inside_protocol, False
        try:
            yield
        finally:
            self._inside_protocol = before

    @contextmanager
    def abortable(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and a terminal that is closed abort what runs inside, within a second,
        instead of tearing a transaction apart.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self.driver.cancel.set()
            if self._inside_protocol:
                raise AbortedError("aborted by the operator; outputs are off", outputs_off=True)

        names = stopping()
        before: list[Any] = [signal.signal(name, stop) for name in names]
        try:
            yield
        finally:
            for name, handler in zip(names, before, strict=True):
                signal.signal(name, handler)


def unknown_result(operation: Operation, pulses: IntArray, away_s: float) -> Result:
    """The result of an `Apply` or `Program` of which only the charged pulses are known; see
    `ApplyResult.interrupted`.
    """
    if isinstance(operation, Apply):
        n, m = len(operation.cells), operation.measurements
        nothing = np.full((n, m), np.nan)
        status = np.full((n, m), Status.UNKNOWN, dtype=np.uint8)
        reads = np.zeros(n, dtype=np.int64)
        whole = ApplyResult(nothing, nothing, status, nothing, pulses, reads)
        gate = nothing if operation.also_gate else None
        return replace(whole, interrupted=True, away_s=away_s, gate_a=gate)
    assert isinstance(operation, Program)
    n = len(operation.cells)
    zero = np.zeros(n, dtype=np.int64)
    unknown = np.full(n, Status.UNKNOWN, dtype=np.uint8)
    lost = ProgramResult(np.full(n, np.nan), unknown, np.zeros(n, dtype=bool), pulses, zero, zero)
    return replace(lost, interrupted=True, away_s=away_s)
