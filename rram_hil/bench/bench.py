"""A bench: what a bench file describes, connected, armed and ready for operations and protocols.

with Bench.open("bench.toml") as bench:
    result = bench.do(read(bench.cells(rows=(0, 3))))
    bench.run(Forming())
"""

from __future__ import annotations

import contextlib
import logging
import typing
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import ValidationError

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
    Geometry,
    Limits,
    Request,
    Result,
    Status,
    read,
)
from rram_hil.bench.bench_file import BenchFile, load_bench_file
from rram_hil.bench.calibrations import correction_of
from rram_hil.bench.far_side import launcher, request_of
from rram_hil.bench.ledgers import ready_ledger
from rram_hil.bench.plugins import driver_class
from rram_hil.bench.thermostats import BenchClimate, check_thermostat, connect_climate
from rram_hil.corrections.correction import Correction
from rram_hil.engine.engine import Engine, Watcher
from rram_hil.engine.protocol import CellChoice, Plan, Protocol, Setting, map_of
from rram_hil.engine.replay import Replay
from rram_hil.errors import AbortedError, BenchError, ConfigError, DataError, told_with_place
from rram_hil.hardware.driver import Capabilities, Driver, DriverConfig, Identity
from rram_hil.hardware.far_side import SimulatedFarSide
from rram_hil.notebook import html_table
from rram_hil.storage.journal import Journal
from rram_hil.storage.ledger import Ledger
from rram_hil.types import FloatArray
from rram_hil.units import field_text
from rram_hil.validation import refused
from rram_hil.wire.link_keys import OF_THE_HARDWARE, LinkKeys
from rram_hil.wire.recording import Playback, Traffic

R = TypeVar("R", bound=Result)
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Bench:
    """One connected bench. Leave it through `close` or `with`: outputs go to zero and off,
    verified.

    `Bench.open` starts what `[simulation]` describes, connects, identifies, checks the geometry,
    makes safe and arms.
    """

    def __init__(
        self,
        file: BenchFile,
        driver: Driver,
        identity: Identity,
        far_side: SimulatedFarSide | None,
        climate: BenchClimate | None = None,
    ) -> None:
        self.file = file
        self.driver = driver
        self.identity = identity
        self.far_side = far_side
        self.climate = climate
        self.ledger: Ledger | None = None
        self.correction: Correction = correction_of(file, driver, identity)
        driver.arrivals = self.correction.arrivals
        self.setting = Setting(
            file.chip.geometry,
            file.limits,
            file.read.step,
            driver.capabilities,
            seed=0,
            correction=self.correction,
            paths=driver.reading_paths,
            instruments=driver.instruments,
            peaks=driver.peaks,
            probes=driver.probes,
        )
        self.ledger_warning = ""
        self._engine: Engine | None = None
        self._closed = False
        self._made_safe = False

    @classmethod
    def open(
        cls, bench: str | Path | BenchFile, *, arm: bool = True, traffic: Traffic | None = None
    ) -> Self:
        """Connect what a bench file describes. With `arm=False` it is only identified and no output
        is touched.

        `traffic` records what goes over the links, or is the playback of such a recording that
        stands in for the hardware.

        Raises `ConfigError` for a wrong file or instrument, `LinkError` where nothing answers;
        nothing stays open then.
        """
        file = bench if isinstance(bench, BenchFile) else load_bench_file(bench)
        kind = checked_driver(file)
        check_thermostat(file)
        far_side = None
        if file.simulation is not None and not isinstance(traffic, Playback):
            far_side = launcher(file.driver.name)(request_of(file))
        try:
            driver = make_driver(kind, file, far_side)
            driver.traffic = traffic
            climate = None
            try:
                identity = driver.connect()
                climate = connect_climate(file, driver.now_s, traffic)
                self = cls(file, driver, identity, far_side, climate)
                self._check_chip()
                _log.info("%s: %s of driver %s", file.path, self.identity.model, file.driver.name)
                if arm:
                    self.arm()
            except BaseException:
                if climate is not None:
                    climate.close()
                driver.close()
                raise
        except BaseException:
            if far_side is not None:
                far_side.stop()
            raise
        return self

    def _check_chip(self) -> None:
        told = self.identity.chip
        if told and told != self.file.chip.id:
            raise ConfigError(
                f"{self.file.chip.id!r}, but the instrument says that chip {told!r} is in its"
                " socket",
                where=f"{self.file.path}: chip.id",
                chip=told,
            )

    def arm(self) -> None:
        """Take the chip's ledger and make the outputs safe; from here on operations run.

        `ledger_warning` then says what to know of where the ledger lies.

        Raises `ConfigError` for limits that the bench cannot keep, `DataError` where another run
        has the ledger, it is of another chip, or there is none although the board knows the chip;
        `BenchError` of the driver. The ledger is then given back and the outputs are off.
        """
        self.driver.check_limits()
        # The ledger first: where another process works on this chip, no output may be touched.
        path, self.ledger_warning = self._ledger_place()
        ledger = Ledger(path, self.geometry, self.file.chip.id, limit=self.limits.pulses_per_cell)
        try:
            self.driver.arm()
            if self.climate is not None:
                self.climate.thermostat.arm()
            if ledger.created:
                self._enter_chip(ledger)
            self._engine = Engine(
                self.driver,
                self.geometry,
                self.limits,
                ledger,
                correction=self.correction,
                climate=self.climate,
            )
            self._same_history(ledger, self._engine.number)
        except BaseException as error:
            self._engine = None
            try:
                off_after(error, self)
            finally:
                ledger.close()
            raise
        self.ledger = ledger
        _log.info("armed; the ledger of chip %s is %s", self.file.chip.id, path)

    def _ledger_place(self) -> tuple[Path, str]:
        if isinstance(self.driver.traffic, Playback):
            # A recording has no chip: what it repeats wears nobody's.
            chip = self.file.chip
            return self.file.folder / (chip.ledger or f"{chip.id}.ledger.npy"), ""
        return ready_ledger(self.file)

    def _same_history(self, ledger: Ledger, last: int) -> None:
        """Refuse a chip whose board carried out operations since the ledger was closed."""
        if 0 < ledger.seen < last:
            raise DataError(
                f"{ledger.path}: this chip's board has carried out operations up to {last}, this"
                f" ledger knows of them up to {ledger.seen}: the chip was used with another ledger;"
                f" add that (rram-hil ledger merge OTHER --bench {self.file.path}), or the pulses"
                " that a cell may have taken meanwhile (rram-hil ledger adopt --pulses N --bench"
                f" {self.file.path})"
            )
        ledger.use()

    def _enter_chip(self, ledger: Ledger) -> None:
        """Begin the history of a chip. Raises `DataError` where its board knows an earlier one."""
        operations = self.driver.last_number()
        if operations:
            raise DataError(
                f"{ledger.path}: this chip has no ledger here, but its board remembers"
                f" {operations} operations: pulses given before would not be counted; put its"
                f" ledger there (rram-hil ledger adopt FILE --bench {self.file.path}), or, if that"
                " is lost, begin one with the pulses that a cell may have taken (rram-hil ledger"
                f" adopt --pulses N --bench {self.file.path})"
            )
        if self.far_side is None and not self.capabilities.counters:
            begins = (
                f"the ledger of chip {ledger.chip_id} begins here, at zero ({ledger.path}): this"
                " bench keeps no records of its own that would know better"
            )
            self.ledger_warning = "; ".join(filter(None, (self.ledger_warning, begins)))
        ledger.enter()

    @property
    def geometry(self) -> Geometry:
        """Size and kind of the array."""
        return self.file.chip.geometry

    @property
    def limits(self) -> Limits:
        """The limits of the bench file."""
        return self.file.limits

    @property
    def capabilities(self) -> Capabilities:
        """What the hardware can do."""
        return self.driver.capabilities

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def engine(self) -> Engine:
        """The engine of an armed bench. Raises `ConfigError` before `arm` or after `close`."""
        if self._engine is None or self._closed:
            raise ConfigError(
                "this bench is closed or was opened with arm=False: no operation can run"
            )
        return self._engine

    def record(
        self, journal: Journal | None, replay: Replay | None = None, watcher: Watcher | None = None
    ) -> Engine:
        """From here on keep every operation in `journal`, answered from `replay` as far as that
        goes.
        """
        self._engine = Engine(
            self.driver,
            self.geometry,
            self.limits,
            self.ledger,
            journal,
            replay,
            watcher,
            self.correction,
            self.climate,
        )
        return self._engine

    def cells(
        self,
        tiles: list[int] | None = None,
        rows: tuple[int, int] | None = None,
        columns: tuple[int, int] | None = None,
    ) -> Cells:
        """Cells of the chip: all, or the crossing of tiles with rows (first, last) and columns
        (first, last).

        Raises `ConfigError` for a range that is not one, or off the chip.
        """
        try:
            choice = CellChoice(tiles=tiles, rows=rows, columns=columns)
        except ValidationError as error:
            raise refused(error, "cells") from None
        return choice.cells(self.geometry)

    def do(self, operation: Request[R]) -> R:
        """Carry out one operation; Ctrl-C aborts it with outputs off. Raises as `Engine.do`."""
        with self.engine.abortable(), self._off_on_error():
            return self.engine.do(operation)

    def apply(self, operation: Apply) -> ApplyResult:
        """`do` for an `Apply`, by its name."""
        return self.do(operation)

    def read_map(self, cells: Cells | None = None) -> FloatArray:
        """Conductances now (S), shape (tiles, rows, columns); NaN where not asked for or without an
        OK reading.
        """
        wanted = Cells.all(self.geometry) if cells is None else cells
        result = self.do(read(wanted, self.file.read.step))
        return map_of(
            wanted, np.where(result.last_status == Status.OK, result.last_s, np.nan), self.geometry
        )

    def run(self, protocol: Protocol[T] | Plan[T]) -> T:
        """Run a protocol (its model or any generator of messages) and return what it returns."""
        plan = protocol.run(self.setting) if isinstance(protocol, Protocol) else protocol
        with self.engine.abortable(), self._off_on_error():
            return self.engine.run(plan)

    def abort(self) -> None:
        """Stop what is under way, from another thread or a signal handler: it ends with
        `AbortedError`, outputs off. What begins afterwards is not stopped.
        """
        self.driver.cancel.set()

    @contextlib.contextmanager
    def _off_on_error(self) -> Iterator[None]:
        self.driver.cancel.clear()
        if self._made_safe:
            # An earlier error switched the outputs off and disarmed the bench; the one at the
            # keyboard goes on now.
            self.driver.arm()
            self._made_safe = False
        try:
            yield
        except BaseException as error:
            self._made_safe = True
            if self._engine is not None:
                is_told = isinstance(error, AbortedError | KeyboardInterrupt)
                self._engine.lose_temperature(for_good=is_told)
            off_after(error, self)
            raise

    def _repr_html_(self) -> str:
        """What a notebook shows: chip, driver, instrument, calibrations, limits, and whether it is
        open.
        """
        chip, who = self.file.chip, self.identity
        shape = " x ".join(str(n) for n in chip.geometry.shape)
        facts = (
            ("chip", f"{chip.id}: {shape} ({chip.geometry.cell})"),
            ("driver", self.file.driver.name),
            ("instrument", f"{who.model} {who.serial}".strip()),
            ("calibration", ", ".join(self.correction.kinds) or "none"),
            ("thermostat", "none" if self.climate is None else self.climate.identity.model),
            ("state", "closed, outputs off" if self._closed else "open"),
        )
        values = {name: getattr(self.limits, name) for name in type(self.limits).model_fields}
        limits = (
            (name, field_text(self.limits, name) if isinstance(value, int | float) else str(value))
            for name, value in values.items()
            if value not in (None, "")
        )
        return (
            f"<div><strong>Bench</strong>{html_table((), facts)}"
            f"{html_table(('limit', 'value'), limits)}</div>"
        )

    def safe_off(self) -> None:
        """All outputs to zero and off and the thermostat without power, verified by read-back; one
        is tried whatever becomes of the other. Raises the error of what could not be verified.
        """
        failures: list[BaseException] = []
        parts: list[HasOutputs] = [self.driver]
        if self.climate is not None:
            parts.append(self.climate.thermostat)
        for part in parts:
            try:
                part.safe_off()
            except BaseException as failure:  # an impatient second Ctrl-C too
                failures.append(failure)
        interrupts = [f for f in failures if not isinstance(f, Exception)]
        if interrupts:
            raise interrupts[0]
        if len(failures) > 1:
            raise BenchError("; ".join(map(_text, failures)), outputs_off=False)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Outputs off, verified; link, ledger and simulator given back. Safe to call twice.

        Raises the driver's error where outputs could not be verified as off; everything is given
        back all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._engine is not None:
                self.safe_off()
        finally:
            self.driver.close()
            if self.climate is not None:
                self.climate.close()
            try:
                if self.ledger is not None:
                    self.ledger.seen = 0 if self._engine is None else self._engine.number
                    self.ledger.close()
            finally:
                if self.far_side is not None:
                    self.far_side.stop()
                _log.info("%s: closed", self.file.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception as failure:
            # What went wrong first is the one error to tell, unless nobody has said yet that
            # outputs may be on.
            if error is None:
                raise
            if getattr(error, "outputs_off", None) is not False:
                raise BenchError(_not_off(error, failure), outputs_off=False) from error

    def __repr__(self) -> str:
        g = self.geometry
        state = "closed" if self._closed else "not armed" if self._engine is None else "armed"
        return (
            f"<Bench {state}: {self.identity.model}, chip {self.file.chip.id}, {g.tiles} x {g.rows}"
            f" x {g.columns}>"
        )


def _not_off(error: BaseException, failure: Exception) -> str:
    return (
        f"{_text(error)}; OUTPUTS COULD NOT BE VERIFIED AS OFF ({_text(failure)}): switch the bench"
        " off by hand"
    )


def _text(error: BaseException) -> str:
    if isinstance(error, BenchError) or not isinstance(error, Exception):
        return str(error) or type(error).__name__
    return told_with_place(error)


class HasOutputs(typing.Protocol):
    """What can be switched off: a bench, or a driver alone."""

    def safe_off(self) -> None:
        """All outputs to zero and off, verified. Raises if not verified."""


def off_after(error: BaseException, bench: HasOutputs) -> None:
    """Switch the outputs off after an error, and say what came of it, in `outputs_off` too, of a
    bug in a note.

    Raises `AbortedError` saying that outputs are off where `error` is one, and `BenchError`, with
    the text of `error`, where they could not be verified as off; else returns, for the error itself
    to be raised.
    """
    _log.warning("switching the outputs off after: %s", str(error) or type(error).__name__)
    try:
        bench.safe_off()
    except Exception as failure:
        kind = AbortedError if isinstance(error, AbortedError) else BenchError
        raise kind(_not_off(error, failure), outputs_off=False) from error
    if isinstance(error, AbortedError) and not error.outputs_off:
        raise AbortedError(f"{error}; outputs are off", outputs_off=True) from None
    if isinstance(error, BenchError):
        error.outputs_off = True
    elif isinstance(error, Exception):
        error.add_note("outputs are off, verified")


def checked_driver(file: BenchFile) -> type[Driver]:
    """The driver of a bench file, whose table `[driver]` is right as it stands there, whatever may
    stand in for the hardware. Raises `ConfigError` naming key, value and what is allowed.
    """
    kind = driver_class(file.driver.name, file.folder)
    _config(kind, file, file.driver.settings)
    return kind


def _config(kind: type[Driver], file: BenchFile, settings: dict[str, Any]) -> DriverConfig:
    try:
        return kind.Config.model_validate(settings, context={"folder": file.folder})
    except ValidationError as error:
        raise refused(error, f"{file.path}: driver {file.driver.name}", kind.Config) from None


def make_driver(kind: type[Driver], file: BenchFile, far_side: SimulatedFarSide | None) -> Driver:
    """A driver with its own section of the bench file. Raises `ConfigError` naming key, value and
    what is allowed.
    """
    settings = file.driver.settings
    if far_side is not None:
        real = OF_THE_HARDWARE if issubclass(kind.Config, LinkKeys) else frozenset[str]()
        kept = {key: value for key, value in settings.items() if key not in real}
        settings = kept | far_side.settings
    return kind(_config(kind, file, settings), file.chip.geometry, file.limits)
