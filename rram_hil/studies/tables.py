"""The tables of a study, in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rram_hil.studies.results import COSTS, Results, Row
from rram_hil.studies.study_file import Study
from rram_hil.studies.words_needed import GAPS, Series, series_of
from rram_hil.terminal.console import Output
from rram_hil.units import duration, minus, number, per_cent

REACHED = ("arm", ">chips", ">mean", ">least", ">float", ">gap (s.e.)")
SPENT = (">words", ">bits", ">of MAC", ">pulses", ">reads", ">vectors", ">bench time")
"""Columns of a table, what arms reach and what they cost; numbers stand to the right."""
NOTE = (
    "Accuracies are of the test images. The gap is that to the same network in floating point"
    " (weights as trained, or clipped as they are mapped where that is better) on the same images,"
    " in points, with the standard error of the paired difference over the images. Words are"
    " on-chip words and the digital parameters trained with them, over the weights; MAC is the"
    " words' share of the multiply-accumulates; bits are those of words and their places, and of a"
    " mapping's order. Pulses, reads, vectors and bench time are those after forming, without the"
    " inference of the test images; means of the chips."
)


def reached(row: Row) -> tuple[str, ...]:
    """What an arm reaches, as `REACHED` shows it."""
    images = row.cells[0].arm.right.images
    return (
        row.arm,
        str(len(row.cells)),
        *(per_cent(value, images) for value in (row.accuracy, row.least, row.float_accuracy)),
        minus(f"{100 * row.gap:+.2f} ({100 * row.gap_error:.2f})"),
    )


def spent(row: Row) -> tuple[str, ...]:
    """What an arm costs, as `SPENT` shows it; empty where it keeps no words or bits, or needs no
    chip.
    """
    means = {name: row.mean(name) for name in COSTS}
    bits = number(round(means["bits"])) if means["bits"] else ""
    fraction, mac_share = (
        per_cent(means[name]) if means["fraction"] else "" for name in ("fraction", "mac_share")
    )
    counts = (number(round(means[name])) for name in ("pulses", "reads", "vectors"))
    return (
        fraction,
        bits,
        mac_share,
        *((*counts, duration(means["bench_s"])) if means["bench_s"] else ("",) * 4),
    )


def rows_of(results: Results, device: str) -> list[Row]:
    """The rows of one device, in the order of the study."""
    found = (results.row(device, choice.name) for choice in results.planned.study.arm)
    return [row for row in found if row is not None]


def show(results: Results, output: Output) -> None:
    """Print what is done of a study, two tables a device."""
    for device in results.planned.study.devices_used:
        rows = rows_of(results, device.name)
        if rows:
            output.heading(f"device {device.name}", device.title)
            output.table(REACHED, [reached(row) for row in rows])
            output.table(("arm", *SPENT), [(row.arm, *spent(row)) for row in rows])


def markdown(results: Results) -> str:
    """All tables of a study, one a device."""
    study = results.planned.study
    parts = [f"# {study.title or 'Study'}", f"{study.model_used.title}. {NOTE}"]
    for device in study.devices_used:
        rows = rows_of(results, device.name)
        if rows:
            lines = [(*reached(row), *spent(row)) for row in rows]
            parts += [f"## Device {device.name}: {device.title}", table(REACHED + SPENT, lines)]
            parts += _formed(results, device.name)
            parts += _words_needed(study, rows)
    return "\n\n".join([*parts, *_by_device(results)]) + "\n"


def _words_needed(study: Study, rows: Sequence[Row]) -> list[str]:
    """For how many words which gap is kept to, of arms that stand there with several fractions."""
    several = [series for series in series_of(study, rows) if len(series.rows) > 1]
    if not several:
        return []
    head = ("words for a gap of at most", *(f">{100 * gap:g} points" for gap in GAPS))
    lines = [(one.name, *(_words_for(one, gap) for gap in GAPS)) for one in several]
    return [
        "Between two rows of an arm words are reckoned on the straight line.",
        table(head, lines),
    ]


def _words_for(series: Series, gap: float) -> str:
    needed, least = series.needed(gap), series.fractions[0]
    if needed is None:
        return f"> {per_cent(series.fractions[-1])}"
    return f"{'≤ ' if needed == least else ''}{per_cent(needed)}"


def _by_device(results: Results) -> list[str]:
    """Mean accuracy of every arm on every device, where there are several."""
    devices = [d.name for d in results.planned.study.devices_used if rows_of(results, d.name)]
    if len(devices) < 2:
        return []
    lines = []
    for choice in results.planned.study.arm:
        rows = [results.row(device, choice.name) for device in devices]
        if any(rows):
            shown = (
                per_cent(row.accuracy, row.cells[0].arm.right.images) if row else "" for row in rows
            )
            lines.append((choice.name, *shown))
    return [
        "## Mean accuracy, device by device",
        table(("arm", *(f">{d}" for d in devices)), lines),
    ]


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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a column whose name begins with ">" stands to the right."""
    names = [name.removeprefix(">") for name in columns]
    rule = ["---:" if name.startswith(">") else "---" for name in columns]
    return "\n".join("| " + " | ".join(line) + " |" for line in (names, rule, *rows))
