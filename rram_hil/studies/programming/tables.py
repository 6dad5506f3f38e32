"""The tables of the study, in Markdown and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rram_hil.studies.programming.figures import AFTER, PERCENTILES, REASONS
from rram_hil.studies.programming.results import MethodResults, MethodRow
from rram_hil.studies.tables import table
from rram_hil.terminal.console import Output
from rram_hil.units import duration, number, per_cent, quantity

NOTE = (
    "Means of the runs: every method on copies of the same chips, after one full cycle, towards the"
    " same targets. Pulses and reads are those of a cell, failed cells included. Rests are followed"
    " by a map, one reading a cell. Moved out are those of the accepted cells that the first map"
    " finds outside, disturbed those of the cells left alone that moved meanwhile. Times are on the"
    " bench clock."
)
REACHED = (">runs", ">inside", "not inside", ">disturbed")
LASTS = (">outside", ">after 1 s", ">after 1 day", ">moved out")
PULSES = (">pulses", ">p50", ">p95", ">p99", ">SET", ">RESET", ">of accepted", ">p99")
SPENT = (">reads", ">p50", ">p95", ">p99", ">vectors", ">reversals", ">energy", ">bench time")
"""Columns of the tables beside the method; numbers stand to the right."""
_REASONS = {
    "out_of_pulses": "pulses spent",
    "out_of_reversals": "reversals spent",
    **{name: name.replace("_", " ") for name in REASONS if not name.startswith("out_of")},
}
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def tables_of(rows: list[MethodRow]) -> Iterator[Table]:
    """Columns and lines of what methods reached, how that lasts, and what it cost."""
    error = "bit errors" if _is_levels(rows[0]) else "rms error"
    for columns, shown in (
        (REACHED, reached),
        ((f">{error}", ">after 1 s", ">after 1 day", *LASTS), lasting),
        (PULSES, pulses),
        (SPENT, spent),
    ):
        yield ("method", *columns), [(row.method, *shown(row)) for row in rows]


def reached(row: MethodRow) -> tuple[str, ...]:
    """As `REACHED` shows it."""
    shares = {told: row.mean(name) for name, told in _REASONS.items()}
    why = ", ".join(f"{told} {per_cent(share)}" for told, share in shares.items() if share > 0)
    inside, disturbed = (per_cent(row.mean(name)) for name in ("inside", "disturbed"))
    return (str(len(row.records)), inside, why, disturbed)


def _is_levels(row: MethodRow) -> bool:
    return math.isnan(row.mean("rms_error_s_at_once"))


def lasting(row: MethodRow) -> tuple[str, ...]:
    """Errors, and cells outside their windows, at once and after each rest."""
    if _is_levels(row):
        errors = [per_cent(row.mean(f"bit_error_rate_{key}")) for key in AFTER]
    else:
        errors = [quantity(row.mean(f"rms_error_s_{key}"), "S") for key in AFTER]
    outside = [per_cent(row.mean(f"outside_{key}")) for key in AFTER]
    return (*errors, *outside, per_cent(row.mean("moved_out")))


def pulses(row: MethodRow) -> tuple[str, ...]:
    """As `PULSES` shows it."""
    taken = (*(f"pulses_{key}" for key in PERCENTILES), "set_pulses_mean", "reset_pulses_mean")
    names = (*taken, "inside_pulses_mean", "inside_pulses_p99")
    return tuple(f"{row.mean(name):.1f}" for name in names)


def spent(row: MethodRow) -> tuple[str, ...]:
    """As `SPENT` shows it."""
    reads = (f"{row.mean(f'reads_{key}'):.1f}" for key in PERCENTILES)
    vectors = number(round(row.mean("vectors"))) if row.mean("vectors") else ""
    reversals = row.mean("reversals_mean")
    return (
        *reads,
        vectors,
        "-" if math.isnan(reversals) else f"{reversals:.1f}",
        quantity(row.mean("energy_j"), "J"),
        duration(row.mean("bench_s")),
    )


def show_methods(results: MethodResults, output: Output) -> None:
    """Print what is done of the study, three tables a device and set of targets."""
    for heading, rows in _sections(results):
        output.heading(*heading)
        for columns, lines in tables_of(rows):
            output.table(columns, lines)


def methods_markdown(results: MethodResults) -> str:
    """All tables of the study."""
    parts = [f"# {results.planned.study.title or 'Programming methods'}", NOTE]
    for (title, told), rows in _sections(results):
        parts.append(f"## {title}: {told}")
        parts += [table(columns, lines) for columns, lines in tables_of(rows)]
    return "\n\n".join(parts) + "\n"


def _sections(results: MethodResults) -> Iterator[tuple[tuple[str, str], list[MethodRow]]]:
    """Heading and rows of each device and set of targets of which something is done."""
    study = results.planned.study
    for device in study.devices_used:
        for targets in study.targets:
            rows = results.rows(device.name, targets.name)
            if rows:
                cells = number(round(rows[0].mean("cells")))
                yield (
                    (f"{device.name}, {targets.name}", f"{device.title}; {cells} cells a run"),
                    rows,
                )
