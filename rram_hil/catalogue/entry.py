"""What the catalogue knows of a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rram_hil.storage.run_state import INTERRUPTED, UNDER_WAY

DAMAGED = "damaged"
STATES = ("complete", "aborted", "error", INTERRUPTED, UNDER_WAY, DAMAGED)
"""What `CatalogEntry.status` may be: what run files say, "under way" for a run whose journal is
held by a process, "damaged" for a file that cannot be read.
"""


def run_id_of(
    started_utc: str, chip_id: str, run: str, bench_sha256: str, recipe_sha256: str, boot: str
) -> str:
    """The id of a run, 16 hexadecimal digits: a digest of what its journal begins with and its run
    file repeats. Copies of a run, and its journal alone, have the same.
    """
    told = json.dumps([started_utc, chip_id, run, bench_sha256, recipe_sha256, boot])
    return hashlib.sha256(told.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class RunFacts:
    """What stands in a run file, or in its journal where that is further.

    `bench` is the model and serial number of the instrument or board. Times are ISO 8601 as the
    file has them, `ended_utc` empty for a run that has not ended. `bench_s` is the time of the
    steps that ended, on the bench clock. `steps` are those that have begun, `protocols` all of the
    recipe. `bench_s`, `pulses` and `reads` are None where they are not known; of a run that has not
    ended the counts are those of its run file, and None where steps ended since that was written.
    `frames` says how far it is: of copies of a run the one with more frames of its journal knows
    more; None where a file does not say it. `reason` says in one line why a file is damaged; the
    other fields are those that could be read all the same, empty where none could.
    """

    run_id: str = ""
    title: str = ""
    status: str = DAMAGED
    reason: str = ""
    chip_id: str = ""
    bench: str = ""
    started_utc: str = ""
    ended_utc: str = ""
    bench_s: float | None = None
    protocols: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    package_version: str = ""
    pulses: int | None = None
    reads: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class CatalogEntry(RunFacts):
    """A run of the catalogue: what its file says, where the file lies, and what was said of the run
    afterwards.
    """

    path: Path = field(default_factory=Path)
    tags: tuple[str, ...] = ()
    note: str = ""
    excluded: bool = False

    @property
    def started(self) -> datetime | None:
        """When the run began (UTC); None where the file does not say it."""
        return utc_time(self.started_utc)

    @property
    def reach(self) -> int:
        """How far the file is, to be compared with copies of the run."""
        return -1 if self.frames is None else self.frames

    @property
    def wall_s(self) -> float | None:
        """Seconds from begin to end by the computer's clock; None for a run that has not ended, and
        where that clock was set back.
        """
        began, ended = self.started, utc_time(self.ended_utc)
        if began is None or ended is None or ended < began:
            return None
        return (ended - began).total_seconds()


def utc_time(text: str) -> datetime | None:
    """An ISO 8601 time, of UTC where it names no zone; None for what is none."""
    try:
        told = datetime.fromisoformat(text)
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
