"""The calibrations that a bench file names, each judged against the connected instruments and the
date.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rram_hil.bench.bench_file import BenchFile
from rram_hil.corrections.calibration_file import CalibrationFile, load
from rram_hil.corrections.correction import SAME_GATE_V, Correction, InForce
from rram_hil.errors import ConfigError
from rram_hil.hardware.driver import Driver, Identity


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
    parts = driver.parts()
    now = now or datetime.now(UTC)
    for name in bench.calibration.files:
        path = bench.folder / name
        file = load(path)
        _check_owner(path, file, bench, identity, parts)
        key = f"{file.kind} {file.instrument.serial} {file.instrument.channel}"
        if key in taken:
            raise ConfigError(
                f"{path}: a second calibration of kind {file.kind!r} for the same thing;"
                f" {taken[key]} is the first"
            )
        taken[key] = name
        found.append(
            InForce(Path(name).name, file, _age(path, file, bench.calibration.accept_expired, now))
        )
    names = [e.name for e in found]
    if len(set(names)) != len(names):
        raise ConfigError(f"{bench.path}: calibration.files: two files have one name; rename one")
    return Correction(found, bench.chip.geometry, parts)


def _age(path: Path, file: CalibrationFile, accept: bool, now: datetime) -> str:
    """A remark where the calibration has expired and that is accepted; empty where it is in
    force.
    """
    if file.date > now + timedelta(days=1):
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


def _check_owner(
    path: Path,
    file: CalibrationFile,
    bench: BenchFile,
    identity: Identity,
    parts: Mapping[str, Identity],
) -> None:
    """Refuse a calibration of something else than what is connected."""
    mine = file.instrument
    if mine.chip and mine.chip != bench.chip.id:
        raise ConfigError(f"{path}: a calibration of {mine}; the bench has chip {bench.chip.id!r}")
    if file.kind == "lines":
        if bench.chip.cell != "1T1R":
            raise ConfigError(
                f"{path}: series resistance of lines applies to 1T1R arrays; this chip is"
                f" {bench.chip.cell}"
            )
        gate = file.conditions.get("wl_v")
        if not isinstance(gate, float | int) or not abs(gate - bench.read.wl_v) <= SAME_GATE_V:
            raise ConfigError(
                f"{path}: measured with the gate at {gate} V; this bench reads at"
                f" {bench.read.wl_v:g} V"
            )
        return
    there = list(parts.values()) if file.kind == "source-meter" else [identity]
    if not any((i.model, i.serial) == (mine.model, mine.serial) for i in there):
        told = "; ".join(f"{i.model}, serial {i.serial}" for i in there) or "no source-meter"
        raise ConfigError(f"{path}: a calibration of {mine}; connected is {told}")
    if file.kind == "board-converters":
        columns = file.values.get("column_gain")
        if columns is not None and columns.values.size != bench.chip.columns:
            raise ConfigError(
                f"{path}: column_gain has {columns.values.size} values; the chip has"
                f" {bench.chip.columns} columns"
            )
