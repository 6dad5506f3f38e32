"""The tables of a study, in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rram_hil.studies.results import Results, Row
from rram_hil.units import duration, minus, number, per_cent

COLUMNS = (
    "arm",
    ">chips",
    ">mean",
    ">least",
    ">gap (s.e.)",
    ">words",
    ">bits",
    ">MAC",
    ">pulses",
    ">reads",
    ">vectors",
    ">bench time",
)
"""Columns of a table; numbers stand to the right."""
NOTE = (
    "Accuracy in per cent of the test images. The gap is that to the same network in floating point"
    " on the same images, in points, with the standard error of the paired difference. Words are"
    " on-chip words and the digital parameters trained with them, over the weights; MAC is their"
    " share of the multiply-accumulates. Pulses, reads, vectors and bench time are those after"
    " forming, without the inference of the test images; means of the chips."
)


def cells_of(row: Row) -> tuple[str, ...]:
    """A row as its columns show it; costs are left out where it needs no chip."""
    images = row.cells[0].arm.right.images
    reached = (
        str(len(row.cells)),
        per_cent(row.accuracy, images),
        per_cent(row.least, images),
        minus(f"{100 * row.gap:+.2f} ({100 * row.gap_error:.2f})"),
    )
    fraction, share = row.mean(lambda c: c.arm.fraction), row.mean(lambda c: c.arm.mac_share)
    kept = (
        (per_cent(fraction), number(round(row.mean(lambda c: c.arm.bits))), f"{share:.2f}")
        if fraction
        else ("", "", "")
    )
    bench_s = row.mean(lambda c: c.arm.costs.bench_s)
    if not bench_s:
        return (row.arm, *reached, *kept, "", "", "", "")
    spent = (
        number(round(row.mean(count)))
        for count in (
            lambda c: c.arm.costs.pulses,
            lambda c: c.arm.costs.reads,
            lambda c: c.arm.costs.vectors,
        )
    )
    return (row.arm, *reached, *kept, *spent, duration(bench_s))


def rows_of(results: Results, device: str) -> list[tuple[str, ...]]:
    """The rows of one device, in the order of the study."""
    found = (results.row(device, choice.name) for choice in results.planned.study.arm)
    return [cells_of(row) for row in found if row is not None]


def markdown(results: Results) -> str:
    """All tables of a study, one a device."""
    study = results.planned.study
    parts = [f"# {study.title or 'Study'}", f"{study.model_used.title}. {NOTE}"]
    for device in study.devices_used:
        rows = rows_of(results, device.name)
        if rows:
            parts += [f"## Device {device.name}: {device.title}", _table(rows)]
            parts += _formed(results, device.name)
    return "\n\n".join(parts) + "\n"


def _formed(results: Results, device: str) -> list[str]:
    records = [r for (name, _), r in results.formings.items() if name == device]
    if not records:
        return []
    pulses = round(sum(r.costs.pulses for r in records) / len(records))
    seconds = sum(r.costs.bench_s for r in records) / len(records)
    low, high = (
        round(sum(counts) / len(records))
        for counts in (
            [r.stuck_low_resistance for r in records],
            [r.stuck_high_resistance for r in records],
        )
    )
    return [
        f"Forming and pulse curves, before every arm alike: {number(pulses)} pulses,"
        f" {duration(seconds)}; it found {number(low)} cells stuck at low and {number(high)} at"
        " high resistance, mean of the chips."
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    names = [name.removeprefix(">") for name in COLUMNS]
    rule = ["---:" if name.startswith(">") else "---" for name in COLUMNS]
    return "\n".join("| " + " | ".join(line) + " |" for line in (names, rule, *rows))
