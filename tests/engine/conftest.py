"""A bench in pieces: engine, ledger, journal and simulated driver, each telling what it does, and
each breakable at any point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rram_hil.array import Cells, Geometry, Limits, Operation, Result, read_step
from rram_hil.engine.engine import Engine
from rram_hil.engine.protocol import Setting
from rram_hil.engine.replay import Replay
from rram_hil.hardware.driver import Capabilities, Driver, DriverConfig, Identity
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.simulation.config import Simulation
from rram_hil.storage.frames import Frame, Header
from rram_hil.storage.journal import Journal, holds_run, read_journal
from rram_hil.storage.ledger import Ledger


class PowerCutError(BaseException):
    """The process dies here."""


class Lab:
    """One chip that outlives every process, and a process after the other that works on it.

    `events` is what happened, in order; `cut_at` is the event before which the process dies
    (counted over its life).
    """

    def __init__(self, folder: Path, geometry: Geometry, limits: Limits, **simulation: Any) -> None:
        self.folder, self.geometry, self.limits = folder, geometry, limits
        self.chip = SimulatedChip(
            geometry,
            Simulation(**({"device": "paper"} | simulation)),
            read_v=limits.read_v,
            chip_id="c1",
        )
        self.can: Capabilities = self.chip.capabilities
        self.events: list[str] = []
        self.cut_at = -1
        self.counters = True
        self.instead: Callable[[Operation, int], Result | None] = lambda operation, number: None
        self._open: list[Any] = []

    def tell(self, event: str) -> None:
        if len(self.events) == self.cut_at:
            raise PowerCutError
        self.events.append(event)

    @property
    def journal_path(self) -> Path:
        return self.folder / "run.journal"

    @property
    def cells(self) -> Cells:
        return Cells.all(self.geometry)

    def setting(self, **changes: Any) -> Setting:
        return replace(
            Setting(self.geometry, self.limits, read_step(), self.can, self.folder), **changes
        )

    def engine(self, *, journal: bool = True, resume: bool = False) -> Engine:
        """A fresh process at work on the chip."""
        self.leave()
        ledger = LoggedLedger(
            self, self.folder / "c1.npy", self.geometry, "c1", limit=self.limits.pulses_per_cell
        )
        self._open.append(ledger)
        replay, kept = None, None
        if journal:
            begun = resume and holds_run(self.journal_path)
            kept = (
                LoggedJournal.resume(self.journal_path)
                if begun
                else LoggedJournal.create(self.journal_path, _header())
            )
            self._open.append(kept)
            kept.lab = self
            replay = Replay(read_journal(self.journal_path)) if begun else None
        self.driver = LoggedDriver(self)
        return Engine(self.driver, self.geometry, self.limits, ledger, kept, replay)

    def leave(self) -> None:
        """The process ends; the chip and the files stay."""
        while self._open:
            self._open.pop().close()

    def frames(self) -> list[Frame]:
        return list(read_journal(self.journal_path))

    def ledger_counts(self) -> np.ndarray:
        self.leave()
        with Ledger(
            self.folder / "c1.npy", self.geometry, "c1", limit=self.limits.pulses_per_cell
        ) as ledger:
            return ledger.counts


class LoggedLedger(Ledger):
    def __init__(self, lab: Lab, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lab = lab

    def charge(self, cells: Cells, pulses: Any) -> None:
        if np.any(pulses):
            self.lab.tell("ledger charge")
        super().charge(cells, pulses)

    def correct(self, cells: Cells, surplus: Any) -> None:
        if np.any(surplus):
            self.lab.tell("ledger correct")
        super().correct(cells, surplus)


class LoggedJournal(Journal):
    lab: Lab | None = None

    def append(self, frame: Frame) -> int:
        if self.lab is not None:
            self.lab.tell(f"journal {type(frame).__name__}")
        return super().append(frame)

    def sync(self) -> None:
        if self.lab is not None:
            self.lab.tell("journal sync")
        super().sync()


class LoggedDriver(Driver):
    """The lab's chip, with what the lab puts in place of an operation."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(DriverConfig(), lab.geometry, lab.limits)
        self.lab = lab

    @property
    def capabilities(self) -> Capabilities:
        return self.lab.can

    def connect(self) -> Identity:
        return Identity("lab", "1")

    def arm(self) -> None: ...

    def execute(self, operation: Operation, number: int) -> Result:
        self.lab.tell(f"driver {type(operation).__name__}")
        done = self.lab.instead(operation, number)
        return self.lab.chip.execute(operation, number, self.cancel) if done is None else done

    def executed(self, number: int, cells: Cells) -> Any:
        if not self.lab.counters:
            return None
        return np.where(
            self.lab.chip.last_numbers(cells) > number, -1, self.lab.chip.executed(number, cells)
        )

    def last_number(self) -> int:
        return self.lab.chip.last_number if self.lab.counters else 0

    def safe_off(self) -> None: ...

    def close(self) -> None: ...

    def now_s(self) -> float:
        return self.lab.chip.now_s


def _header() -> Header:
    return Header(
        "r",
        "c1",
        Geometry(1, 1, 1),
        "",
        "",
        "2026-01-01T00:00:00Z",
        "virtual",
        Identity("lab", "1"),
        "0",
    )


LIMITS = Limits(
    bl_v=4.0,
    sl_v=4.0,
    wl_v=4.0,
    cell_v=4.0,
    gate_over_v=4.2,
    half_select_v=0.5,
    read_v=0.25,
    current_a=1e-3,
    energy_j=1e-7,
    width_s=1e-5,
    pulses_per_cell=200,
    body_v=1.0,
)


@pytest.fixture
def power_cut() -> type[BaseException]:
    return PowerCutError


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(
        tiles: int = 1,
        rows: int = 2,
        columns: int = 3,
        limits: dict[str, Any] | None = None,
        **simulation: Any,
    ) -> Lab:
        folder = tmp_path / f"lab{len(made)}"
        folder.mkdir()
        made.append(
            Lab(
                folder,
                Geometry(tiles, rows, columns),
                LIMITS.model_copy(update=limits or {}),
                **simulation,
            )
        )
        return made[-1]

    yield make
    for lab in made:
        lab.leave()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A lab with a small fresh chip."""
    return make_lab()
