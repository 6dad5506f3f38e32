"""What `check`, `plan` and `run` print once they know it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rram_hil.array import Cells
from rram_hil.array.defects import Finding, LookSummary
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import BenchFile
from rram_hil.bench.discovery import Device, KnownModels
from rram_hil.bench.forecast import Forecast
from rram_hil.bench.plugins import Installed
from rram_hil.bench.read_limit import ReadLimitTrial
from rram_hil.bench.recipe_runner import RunOutcome
from rram_hil.hardware.driver import Capabilities, Span
from rram_hil.hardware.examination import Outcome, Verdict
from rram_hil.networks.layers import Arithmetic, Elementwise, Layer
from rram_hil.networks.network import Network
from rram_hil.networks.placement import Place, places, rows_of
from rram_hil.storage.ledger_file import read_ledger
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.run_state import journal_of
from rram_hil.terminal.console import Output, outcome_text
from rram_hil.types import IntArray
from rram_hil.units import (
    count,
    counted,
    duration,
    elapsed,
    field_text,
    quantity,
    ranges,
    scaled,
    units_of,
)

CELLS_SHOWN = 6


def _thermostat(bench: Bench) -> list[tuple[str, str]]:
    """Who keeps the chip at a temperature, and at which a recipe may ask for."""
    climate = bench.climate
    if climate is None:
        return []
    limits = f"{climate.lowest_k:g} to {climate.highest_k:g} K"
    return [("thermostat", f"{climate.told}; {limits}")]


def show_bench(bench: Bench, output: Output) -> None:
    """Who answered, and the envelope of what it can do."""
    who, can, chip = bench.identity, bench.capabilities, bench.file.chip
    has_gates = chip.cell == "1T1R"
    output.heading(str(bench.file.path), f"driver {bench.file.driver.name}")
    output.facts(
        [
            ("instrument", who.model),
            ("serial", who.serial),
            ("firmware", who.firmware),
            ("protocol", who.protocol),
            ("boot", who.boot),
            ("link", can.link if can.link != who.protocol else ""),
            (
                "chip",
                (
                    f"{chip.id}: {chip.tiles} x {chip.rows} x {chip.columns} (tiles, rows,"
                    f" columns), {chip.cell}"
                ),
            ),
            *_thermostat(bench),
        ]
    )
    output.heading("Can do")
    rows = [
        ("bit line", _span(can, "bl_v"), f"limit {field_text(bench.limits, 'bl_v')}"),
        ("source line", _span(can, "sl_v"), f"limit {field_text(bench.limits, 'sl_v')}"),
        *(
            [("word line", _span(can, "wl_v"), f"limit {field_text(bench.limits, 'wl_v')}")]
            * has_gates
        ),
        ("pulse width", _span(can, "width_s"), f"limit {field_text(bench.limits, 'width_s')}"),
        (
            "one operation",
            f"{count(can.max_cells)} cells, {count(can.max_steps)} steps",
            "volts per cell" if can.per_cell_bias else "one level for all cells",
        ),
        ("unselected lines", ", ".join(sorted(can.schemes)), ""),
        ("write-verify", "on the board" if can.program else "from the host", ""),
        (
            "multiply",
            (
                f"{can.input_bits}-bit inputs, {can.adc_bits}-bit codes"
                if can.multiply
                else "from single reads, on the host"
            ),
            f"{count(can.max_vectors)} vectors at once" if can.multiply else "",
        ),
        (
            "on-chip words",
            f"{count(can.words)} of {can.word_bits} bits" if can.words else "none",
            "",
        ),
        (
            "gate current",
            ("measured" if can.gate_current else "not measured"),
            "" if "also_gate" in can.step_extras or not can.gate_current else "by itself",
        ),
        (
            "a step may say",
            ", ".join(["BL", "SL", *["WL"] * has_gates, *sorted(can.step_extras)]),
            "",
        ),
        (
            "compliance",
            "set per operation" if can.compliance else "none",
            "the gate limits the current" if has_gates and not can.compliance else "",
        ),
        ("pulse counters", "kept by the hardware" if can.counters else "none", ""),
        ("abort", f"within {field_text(can, 'abort_s')}", f"{can.clock} clock"),
    ]
    output.table(("what", "range", ""), rows)
    for line in _beyond(bench):
        output.line(line, "yellow", indent=2)
    wear = bench.driver.wear()
    if wear:
        output.line(f"Wear: {wear}.")


def show_outcomes(outcomes: Sequence[Outcome], output: Output) -> None:
    """What a board's examination found: the rules, then what is broken or missing in words."""
    output.table(
        ("", "rule", "section", "told"),
        [(str(one.verdict), one.rule, one.section, one.told) for one in outcomes],
    )
    counts = {verdict: sum(one.verdict is verdict for one in outcomes) for verdict in Verdict}
    output.line(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    broken = [one.rule for one in outcomes if one.verdict is Verdict.BROKEN]
    unseen = [
        one.rule
        for one in outcomes
        if one.required and one.verdict in (Verdict.LEFT_OUT, Verdict.NOT_ASKED)
    ]
    if broken:
        output.line(f"The board breaks {len(broken)} of the protocol's rules.")
    elif unseen:
        output.line(f"Nothing broken is seen; not looked at: {'; '.join(unseen)}.")
    else:
        output.line("The board keeps the protocol.")


def show_devices(devices: list[Device], output: Output) -> None:
    """Who answers where, what fits, and sections of a bench file to paste."""
    if not devices:
        output.line(
            "Nothing found: no VISA resource answers a search, and this computer has no serial"
            " port. Instruments on a TCP socket cannot be searched for: name each, as in --resource"
            " TCPIP::192.168.1.5::5025::SOCKET. GPIB and USB need a backend: pip install"
            " gpib-ctypes pyusb, or the vendor's VISA library."
        )
        return
    output.heading("Found", f"{len(devices)}")
    rows = [
        (
            d.resource,
            " ".join(part for part in (d.maker, d.model, d.serial) if part),
            d.kind or d.driver or d.problem,
        )
        for d in devices
    ]
    output.table(("resource", "who answers", "driver"), rows)
    blocks = [d.toml for d in devices if d.toml]
    if blocks:
        output.heading("For the bench file")
        for block in blocks:
            for line in block.splitlines():
                output.command(line)
            output.line("")
    elif not any(d.told for d in devices):
        output.line("Nobody was identified; instruments on a TCP socket are asked with --resource.")


def models_table(rows: Iterable[KnownModels]) -> str:
    """Every model with what it was checked against, as a table in Markdown."""
    lines = ["| kind | models | checked against | unverified |", "|---|---|---|---|"]
    for row in rows:
        checked, unverified = "; ".join(row.documents), "; ".join(row.unverified)
        lines.append(f"| `{row.kind}` | {' '.join(row.models)} | {checked} | {unverified} |")
    return "\n".join(lines)


def show_installed(found: list[Installed], output: Output) -> None:
    """What is installed, a table a sort, and why something is of no use."""
    for sort in dict.fromkeys(one.sort for one in found):
        output.heading(f"{sort[0].upper()}{sort[1:]}s")
        here = [one for one in found if one.sort == sort]
        names = [(one.name, f"{one.package} {one.version}") for one in here]
        # An indent, and two spaces behind each column.
        room = output.console.width - sum(max(map(len, c)) for c in zip(*names, strict=True)) - 8
        rows = [
            (*told, " ".join(one.problem.split()) or _in_room(one.entry_point, room))
            for told, one in zip(names, here, strict=True)
        ]
        output.table(("name", "package", "entry point, or what is wrong"), rows)


def _in_room(entry_point: str, room: int) -> str:
    return entry_point if len(entry_point) <= room else entry_point.replace(":", ":\n")


def _beyond(bench: Bench) -> list[str]:
    """A line for each limit above what the hardware can do: no limit at all, probably a typing
    error.
    """
    said = []
    for name in ("bl_v", "sl_v", "wl_v", "width_s"):
        span: Span = getattr(bench.capabilities, name)
        most = max(abs(span.low), abs(span.high))
        if getattr(bench.limits, name) > most:
            said.append(
                f"limits.{name} of {field_text(bench.limits, name)} is more than this bench can"
                f" ({quantity(most, units_of(Capabilities)[name])})."
            )
    return said


def _span(can: Capabilities, name: str) -> str:
    span: Span = getattr(can, name)
    unit = units_of(Capabilities)[name]
    step = f", steps of {quantity(span.step, unit)}" if span.step else ""
    return f"{quantity(span.low, unit)} to {quantity(span.high, unit)}{step}"


def show_look(found: LookSummary, file: BenchFile, pulses: IntArray, output: Output) -> None:
    """The defects of a look, in one table. `pulses` are those that each cell took by the chip's
    ledger, shape (tiles, rows, columns).
    """
    read = file.read
    gate = f" {field_text(read, 'wl_v')} on WL," if file.chip.cell == "1T1R" else ""
    with_read = f"{field_text(read, 'bl_v')} on BL,{gate} {field_text(read, 'width_s')}"
    output.heading("Look", f"{counted(found.cells, 'cell')} at {with_read}: no pulse given")
    rows = [
        (f.kind, str(f.tile), *_where(f), quantity(f.value, "A" if f.kind == "gate leak" else "S"))
        for f in found.findings
    ]
    silent = [t for t in found.pristine_tiles if 2 * (pulses[t] > 0).sum() >= pulses[t].size]
    if rows:
        output.table(("defect", ">tile", ">count", "where", ">median"), rows)
    elif not silent:
        output.line("No shorts, no opens, no leaky gates.", indent=2)
    summary = f"median {field_text(found, 'median_s')}"
    if found.leaky_gates is None:
        summary += "; gate currents are not measured by this bench"
    output.line(f"{summary[0].upper()}{summary[1:]}.", indent=2)
    for tile in silent:
        output.line(_silent(tile, pulses[tile], file), "yellow", indent=2)
    pristine = [t for t in found.pristine_tiles if t not in silent]
    if pristine:
        output.line(
            f"Most cells of {_tiles(pristine)} do not conduct: pristine, or all open. Opens show"
            " once the array is formed.",
            indent=2,
        )


def _silent(tile: int, pulses: IntArray, file: BenchFile) -> str:
    """What to say of a tile most of whose cells took pulses and do not conduct."""
    wiring = file.driver.settings.get("wiring")
    place = (
        f"[driver.wiring] ({', '.join(wiring)}) and the cables"
        if isinstance(wiring, dict)
        else "the cables and the contacts of the chip"
    )
    return (
        f"Most cells of tile {tile} do not conduct, yet {count(int((pulses > 0).sum()))} of"
        f" {count(pulses.size)} took pulses by the ledger ({count(int(pulses.sum()))} in all):"
        f" forming did not succeed, or the bench does not reach them. Look at {place}."
    )


def _tiles(tiles: Sequence[int]) -> str:
    return f"tile{'s' if len(tiles) > 1 else ''} {ranges(tiles)}"


def show_read_limit(trial: ReadLimitTrial, output: Output) -> None:
    """What the strongest step that counts as a read did to cells of the device model."""
    tried = (
        f"{count(trial.steps)} steps of {field_text(trial, 'read_v')} and"
        f" {field_text(trial, 'width_s')} each way, which limits.read_v calls reads"
    )
    if trial.changed:
        output.line(
            f"{tried[0].upper()}{tried[1:]}, changed {count(trial.changed)} of"
            f" {count(trial.cells)} cells of the device model: they are pulses that nobody counts."
            " Lower limits.read_v or limits.read_width_s.",
            "red",
        )
    else:
        output.line(f"{tried[0].upper()}{tried[1:]}, changed no cell of the device model.")


def _where(found: Finding) -> tuple[str, str]:
    if found.place == "tile":
        return "", "the whole tile"
    if found.place != "cell":
        name = found.place if len(found.index) == 1 else f"{found.place}s"
        return count(len(found.index)), f"{name} {ranges([int(i) for i in found.index])}"
    cells = ", ".join(f"({row}, {column})" for row, column in found.index[:CELLS_SHOWN])
    left = len(found.index) - CELLS_SHOWN
    name = "cell" if len(found.index) == 1 else "cells"
    return (
        count(len(found.index)),
        f"{name} {cells}{f' and {count(left)} more' if left > 0 else ''}",
    )


def show_forecast(forecast: Forecast, recipe: Path, bench: BenchFile, output: Output) -> None:
    """What a recipe would do, step by step, against the limits and the ledger."""
    start = "from the simulated chip's state" if forecast.remembered else "a pristine chip"
    output.heading(
        str(recipe), f"on {bench.path}, chip {bench.chip.id}; model: {forecast.device}, {start}"
    )
    limits = bench.limits
    output.heading("Worst case of each step", "|V| in volts")
    levels = {"BL": "bl_v", "SL": "sl_v", "WL": "wl_v", "BL-SL": "cell_v"}
    if any(step.extremes.body_v > 0 for step in forecast.steps):
        levels["body"] = "body_v"
    rows = []
    for number, step in enumerate(forecast.steps, 1):
        e = step.extremes
        widths, unit = scaled(e.pulse_s or (), "s")
        width = f"{'-'.join(dict.fromkeys(widths))} {unit}" if widths else "-"
        volts = (f"{getattr(e, name):.3g}" for name in levels.values())
        rows.append((f"{number} {step.name}", *volts, width, count(step.worst_pulses)))
    of_limits = (f"{getattr(limits, name):.3g}" for name in levels.values())
    rows.append(("limit", *of_limits, field_text(limits, "width_s"), count(forecast.limit)))
    columns = ("step", *(f">{line}" for line in levels), ">width", ">pulses/cell")
    output.table(columns, rows)
    _costs(forecast, bench, output)
    output.heading("Would leave")
    output.facts(
        [(f"{n} {s.name}", outcome_text(s.outcome)) for n, s in enumerate(forecast.steps, 1)]
    )
    for tag, programmed in forecast.networks.items():
        show_places(tag, places(programmed.mapping, programmed.network), output)
    _budget(forecast, output)


def _costs(forecast: Forecast, bench: BenchFile, output: Output) -> None:
    """What each step takes on the model of this chip, and on other chips of that model."""
    names = [f"{number} {step.name}" for number, step in enumerate(forecast.steps, 1)]
    output.heading("On the model")
    quantities = ("operations", "pulses", "reads", "vectors", "bench_s")
    spent = [[getattr(step, q) for q in quantities] for step in forecast.steps]
    spent.append([sum(of_all) for of_all in zip(*spent, strict=True)])
    rows = [
        (name, *(count(n) for n in numbers), duration(bench_s))
        for name, (*numbers, bench_s) in zip([*names, "all"], spent, strict=True)
    ]
    output.table(("step", ">oper.", ">pulses", ">reads", ">vectors", ">bench time"), rows)
    many = len(forecast.others)
    if many:
        output.heading(
            f"On {counted(many, 'other chip')} of the model",
            "p5 to p95" if many > 1 else "",
        )
        rows = [
            (name, *_spread(forecast, step))
            for name, step in zip([*names, "all"], [*range(len(names)), None], strict=True)
        ]
        output.table(("step", ">pulses", ">bench time"), rows)
    for error in dict.fromkeys(forecast.ended):
        output.line(
            f"{forecast.ended.count(error)} of {many + len(forecast.ended)} other chips ended it:"
            f" {error}",
            "yellow",
            indent=2,
        )
    if forecast.paced_by:
        output.line(
            f"Bench times are those of simulated instruments ({forecast.paced_by}), on which each"
            " kind of operation was tried.",
            indent=2,
        )
    elif not forecast.keeps_times:
        output.line(
            f"Bench times are those of an ideal board, which can do all that a step may ask for. A"
            f" bench of driver {bench.driver.name} takes longer, by what its instruments and relays"
            " need to settle and its link to answer, and may refuse what it has not.",
            "yellow",
            indent=2,
        )


def _spread(forecast: Forecast, step: int | None) -> tuple[str, str]:
    pulses, times = forecast.spread("pulses", step), forecast.spread("bench_s", step)
    assert pulses is not None
    assert times is not None
    return (
        _between(*(count(round(n)) for n in pulses)),
        _between(*(duration(bench_s) for bench_s in times)),
    )


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def show_network(file: Path, network: Network, placed: Sequence[Place], output: Output) -> None:
    """The layers of a network file, and which weights go where."""
    shapes = network.matrices
    output.heading(
        str(file),
        f"{count(network.parameters)} values, {count(sum(map(math.prod, shapes.values())))} of them"
        " weights for the array",
    )
    rows, before = [], "input"
    for layer in network.layers:
        weight = getattr(layer, "weight_name", "")
        rows.append(
            (
                layer.name,
                _kind(layer),
                ", ".join(layer.of or (before,)),
                " x ".join(map(str, shapes.get(weight, ()))),
            )
        )
        before = layer.name
    output.table(("layer", "kind", "takes", ">weight"), rows)
    show_places("", placed, output)


def _kind(layer: Layer) -> str:
    if isinstance(layer, Arithmetic):
        return layer.operator
    if isinstance(layer, Elementwise):
        return layer.function
    return layer.kind


def show_places(tag: str, placed: Sequence[Place], output: Output) -> None:
    """Which weights of a network are where."""
    if placed:
        output.heading("Where the weights are", tag)
        output.table(("weight", ">values", "where"), rows_of(placed))


def _budget(forecast: Forecast, output: Output) -> None:
    output.heading("Budget")
    if forecast.ledger is None:
        output.line(
            f"{count(forecast.limit)} pulses a cell; this chip has no ledger yet.", indent=2
        )
    else:
        left = count(forecast.least_left)
        if forecast.most_left != forecast.least_left:
            left += f" to {count(forecast.most_left)}"
        output.line(
            f"{left} of {count(forecast.limit)} pulses a cell are left, says"
            f" {forecast.ledger.name}.",
            indent=2,
        )
    if forecast.worst_left < 0:
        output.line(
            f"In the worst case a cell would need {count(-forecast.worst_left)} pulses more than it"
            " has left: the run may be refused on the way.",
            "yellow",
            indent=2,
        )
    else:
        output.line(
            f"In the worst case every cell keeps at least {count(forecast.worst_left)} after this"
            " run.",
            indent=2,
        )
    output.heading("Nothing is beyond the limits. No output was touched, no file was written.")


def show_outcome(outcome: RunOutcome, run: RunFile, output: Output) -> None:
    """What a finished run did, and where it is. `run` is what there is of it, its run file or what
    its journal holds.
    """
    steps = run.table("steps")
    rows = [
        (
            f"{number} {name}",
            count(int(pulses)),
            count(int(reads)),
            duration(math.nan if ended is None else elapsed(started, ended)),
        )
        for number, name, pulses, reads, started, ended in zip(
            *(steps[c] for c in ("step", "name", "pulses", "reads", "started_s", "ended_s")),
            strict=True,
        )
    ]
    output.heading("Done", f"{len(rows)} step{'s' if len(rows) != 1 else ''}, outputs off")
    output.table(("step", ">pulses", ">reads", ">bench time"), rows)
    outcomes = run.table("operations", columns=("outcome",))["outcome"]
    if cut := int(np.sum(outcomes != "done")):
        output.line(
            f"{counted(cut, 'operation')} cut; the notes that `rram-hil show` prints say by what,"
            " and which cells are charged with pulses that may not have been given.",
            indent=2,
        )
    output.facts(
        [(f"{n} {name}", outcome_text(left)) for n, (name, left) in enumerate(outcome.steps, 1)]
    )
    output.heading("Files")
    output.facts(
        [("run file", str(outcome.run_file)), ("journal", str(journal_of(outcome.run_file)))]
    )
    output.command(f"rram-hil show {shlex.quote(str(outcome.run_file))}")
    output.command(
        f"rram-hil export {shlex.quote(str(outcome.run_file))} --csv tables --npz arrays.npz"
    )


def show_ledger(path: Path, file: BenchFile, output: Output) -> None:
    """What a ledger of this bench's chip holds, and whose pulses. Raises `DataError` for none."""
    held = read_ledger(path, file.chip.id, file.chip.geometry)
    output.heading(str(path), f"chip {held.chip_id}")
    counts = held.counts
    worn = Cells.from_index([int(counts.argmax())], held.geometry).address(0)
    output.line(
        f"{count(int(counts.sum()))} pulses in all; most on cell {worn}: {count(int(counts.max()))}"
        f" of {count(file.limits.pulses_per_cell)}.",
        indent=2,
    )
    output.line(f"Ledger {held.id}, change {held.count}.", indent=2)
    for session in held.sessions:
        changes = session.last - session.first + 1
        output.line(f"{session.utc}  {session.name}: {count(changes)} changes", indent=2)
