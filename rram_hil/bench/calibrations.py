"""The calibrations that a bench file names, each judged against the connected instruments and the
date.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from rram_hil.bench.bench_file import BenchFile
from rram_hil.corrections.calibration_file import CalibrationFile, load
from rram_hil.corrections.correction import Correction, InForce
from rram_hil.corrections.kind import BenchFacts, kind_class
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Driver, Identity


def utc_now() -> datetime:
    """The time of this computer (UTC). A clock that has run off the calendar is at its end."""
    try:
        return datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def correction_of(
    bench: BenchFile, driver: Driver, identity: Identity, now: datetime | None = None
) -> Correction:
    """The calibrations that a bench file names, each checked against the connected instruments and
    the date.

    Raises `ConfigError` in one line for a file that is wrong, foreign, expired or says the same as
    another.
    """
    found: list[InForce] = []
    taken: dict[str, str] = {}
    facts = BenchFacts(
        bench.chip.geometry,
        bench.chip.id,
        identity,
        driver.parts(),
        bench.read.wl_v,
        driver.generators,
    )
    now = now or utc_now()
    for name in bench.calibration.files:
        path = bench.folder / name
        file = load(path)
        kind = kind_class(file.kind)(file, facts)
        try:
            kind.check_owner()
            kind.check_values()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        key = f"{file.kind} {file.instrument.serial} {file.instrument.channel}"
        if key in taken:
            raise ConfigError(
                f"{path}: a second calibration of kind {file.kind!r} for the same thing;"
                f" {taken[key]} is the first"
            )
        taken[key] = name
        found.append(
            InForce(Path(name).name, kind, _age(path, file, bench.calibration.accept_expired, now))
        )
    names = [e.name for e in found]
    if len(set(names)) != len(names):
        raise ConfigError(f"{bench.path}: calibration.files: two files have one name; rename one")
    return Correction(found)


def _age(path: Path, file: CalibrationFile, accept: bool, now: datetime) -> str:
    """A remark where the calibration has expired and that is accepted; empty where it is in
    force.
    """
    if file.date - now > timedelta(days=1):
        raise ConfigError(
            f"{path}: this calibration is dated {file.date:%Y-%m-%d}, which is yet to come; check"
            " this computer's clock"
        )
    if now <= file.expires:
        return ""
    told = (
        f"this calibration of {file.date:%Y-%m-%d} expired on {file.expires:%Y-%m-%d}"
        f" ({file.validity_days:g} days)"
    )
    if not accept:
        raise ConfigError(
            f"{path}: {told}; calibrate again, or set calibration.accept_expired = true"
        )
    return f"{told}; accepted by accept_expired"
