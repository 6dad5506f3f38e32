"""What the demonstration shows: the table on the terminal, summary.json and the report page, all
from the run files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rram_hil.demo.chips import ChipRun, WireCheck
from rram_hil.demo.files import Device
from rram_hil.demo.table import (
    FLOAT,
    ONE_SHOT,
    RSA,
    ChipResult,
    Row,
    compare,
    mean_rows,
    student_maps,
)
from rram_hil.networks.word_costs import WordCosts
from rram_hil.report import model
from rram_hil.report.drawing import new_axes, svg
from rram_hil.report.page import write_report
from rram_hil.simulation.config import Timing
from rram_hil.storage.run_reader import read_run
from rram_hil.terminal.console import Output
from rram_hil.units import duration, number, per_cent, units_of, value_text, words_of

TITLES: dict[Device, str] = {
    "paper": (
        "device `paper`: one-shot sigma 0.1, 1.75 % of cells stuck at low and 9.04 % at high"
        " resistance"
    ),
    "hfo2": "device `hfo2`: figures of measured HfO2 1T1R chips",
}


@dataclass(frozen=True)
class Demo:
    """What a demonstration found and where its files are."""

    folder: Path
    data: str
    images: int
    seed: int
    runs: tuple[ChipRun, ...]
    seconds: float

    def results(self, device: Device) -> list[ChipResult]:
        """The chips of one device preset."""
        return [run.result for run in self.runs if run.plan.device == device]

    @property
    def devices(self) -> list[Device]:
        """The device presets, in order."""
        return list(dict.fromkeys(run.plan.device for run in self.runs))

    @property
    def wire(self) -> WireCheck | None:
        """The check of the wire, where one chip did it."""
        return next((run.wire for run in self.runs if run.wire is not None), None)


def show(demo: Demo, output: Output) -> None:
    """Print the tables, the cost of compensation and where the files are."""
    for device in demo.devices:
        chips = demo.results(device)
        many = f", mean of {len(chips)} chips" if len(chips) > 1 else ""
        output.heading(f"{TITLES[device]}{many}")
        rows = mean_rows(chips)
        output.table(_COLUMNS, [(r.name, per_cent(r.accuracy), *_spent(r)) for r in rows])
        output.table(_WORD_COLUMNS, [_kept(row.name, row.words) for row in rows if row.words])
        for line in _account(chips):
            output.line(line, indent=2)
    first = demo.results(demo.devices[0])[0]
    output.heading("times of the simulated board (virtual clock)")
    units = units_of(Timing)
    output.line(
        ", ".join(
            f"{words_of(name, units[name])} {value_text(value, units[name])}"
            for name, value in first.cost.durations
        ),
        indent=2,
    )
    if demo.wire is not None:
        wire = demo.wire
        output.line(
            f"through the wire: {wire.same_predictions} of {wire.images} predictions as in the"
            f" process, same chip state, read noise off ({wire.wire_seconds:.0f} s)",
            indent=2,
        )
    output.heading("files", f"in {demo.folder} after {duration(demo.seconds)}")
    output.facts(
        (
            ("report", str(demo.folder / "report.html")),
            ("numbers", str(demo.folder / "summary.json")),
            ("run file", str(demo.folder / "run.h5")),
        )
    )
    output.command(f"rram-hil show {demo.folder / 'run.h5'}")


_COLUMNS = ("", ">accuracy", ">pulses", ">reads", ">vectors", ">bench time")
_WORD_COLUMNS = ("on the chip", ">words", ">digital", ">of weights", ">bits", ">of MAC")


def _spent(row: Row) -> tuple[str, ...]:
    """Costs of a row as its columns show them."""
    if row.reference:
        return ("-",) * 4
    counts = (number(n) for n in (row.pulses, row.reads, row.vectors))
    return (*counts, duration(row.bench_seconds))


def _kept(name: str, words: WordCosts) -> tuple[str, ...]:
    """What a row keeps in digital memory, as its columns show it."""
    shares = per_cent(words.fraction), number(words.bits), per_cent(words.mac_share)
    return (name, number(words.words), number(words.digital), *shares)


def _account(chips: list[ChipResult]) -> tuple[str, ...]:
    """What the table's compensation costs beside its baselines, and whether it is as good."""
    cost, hit = chips[0].cost, chips[0].programming
    mine = cost.compensation
    parts = ", ".join(
        f"{part.name} {number(part.count)} in {duration(part.seconds)}" for part in mine.parts
    )
    ratios = "; ".join(
        f"{arm.name} {duration(arm.bench_s)}, {ratio:.0f} times as long, on the board alone"
        f" {board:.0f} times ({link_text(arm)})"
        for arm, (_, ratio, board) in zip(cost.baselines, cost.ratios, strict=True)
    )
    checks = ", ".join(f"{arm.name} {duration(arm.bench_s)}" for arm in cost.apart)
    return (
        f"one-shot error: sigma {hit.sigma:.3f}, mean {hit.mean:+.3f} of the target over"
        f" {number(hit.cells)} cells",
        f"compensation on the bench: {duration(mine.bench_s)} ({parts}, {link_text(mine)}); the"
        f" host trained for {duration(mine.host_s)}",
        f"against it: {ratios}; the paper states 15 to 150 times, from latencies of writing",
        f"apart: {checks}",
        equality_text(chips),
    )


def link_text(arm: model.CostArm) -> str:
    """What went over the link."""
    return (
        f"link: {number(arm.operations)} operations, {number(arm.link_bytes)} bytes in"
        f" {duration(arm.link_s)}"
    )


def equality_text(chips: list[ChipResult]) -> str:
    """Whether the compensation is as accurate as the best read-verify-write, and how that is
    reckoned.
    """
    found = compare(chips)
    words = next(row.words for row in mean_rows(chips) if row.words is not None)
    told = "equal accuracy" if found.equal else "NOT of equal accuracy"
    return (
        f"{told}: {RSA} with {per_cent(words.fraction)} of words minus {found.best}, the best row"
        f" of verification: {100 * found.difference:+.2f} points, standard error of the paired"
        f" difference {100 * found.standard_error:.2f}"
    )


def write_summary(demo: Demo) -> None:
    """Write summary.json: `rows` of the first device preset (mean over its chips), and everything
    by preset and chip.
    """
    devices = {}
    for device in demo.devices:
        chips = demo.results(device)
        devices[device] = {
            "rows": [asdict(row) for row in mean_rows(chips)],
            "equality": asdict(compare(chips)) | {"equal": compare(chips).equal},
            "chips": [
                {
                    "run_file": str(chip.path.relative_to(demo.folder)),
                    "rows": [asdict(row) for row in chip.rows],
                    "one_shot_error": asdict(chip.programming),
                    "compensation": asdict(chip.cost)
                    | {
                        "ratios": {
                            name: {"with_link": ratio, "board_alone": board}
                            for name, ratio, board in chip.cost.ratios
                        }
                    },
                }
                for chip in chips
            ],
        }
    summary = {
        "data": demo.data,
        "seed": demo.seed,
        "clock": "virtual",
        "device": demo.devices[0],
        "rows": devices[demo.devices[0]]["rows"],
        "devices": devices,
        "wire_check": None if demo.wire is None else asdict(demo.wire),
    }
    (demo.folder / "summary.json").write_text(
        json.dumps(summary, indent=2) + "\n", encoding="utf-8"
    )


def prepare_page() -> None:
    """Draw an empty picture: the first one imports what all are drawn with."""
    with new_axes() as axes:
        svg(axes, "")


def write_page(demo: Demo) -> None:
    """Write report.html from the run files."""
    first = demo.runs[0]
    with read_run(first.result.path) as run:
        who = run.attributes
    tables = tuple(_table(demo, device) for device in demo.devices)
    write_report(
        demo.folder / "report.html",
        model.Report(
            title="A trained network on an inaccurate RRAM array",
            account=model.Account(
                chip=", ".join(run.plan.chip for run in demo.runs),
                bench=f"simulated, driver {first.plan.driver}",
                recipe="recipe.toml beside this page",
                started=str(who["started_utc"]),
                clock="virtual",
                seed=demo.seed,
                versions=(("rram-hil", str(who["package_version"])),),
                remark=demo.data,
            ),
            key_figures=_key_figures(demo),
            results=tables,
            charts=tuple(model.BarChart.of(table) for table in tables),
            costs=tuple(_cost(device, demo.results(device)) for device in demo.devices),
            maps=tuple(_panel(device, demo.results(device)[0]) for device in demo.devices),
            notes=(
                (
                    "The chips are simulated. Devices and programming errors come from the device"
                    " model; every number here is read from the run files beside this page."
                ),
                (
                    "Pulses, reads and bench time count programming and compensation after forming,"
                    " not the inference."
                ),
                (
                    "Accuracy of R-V-W and of one-shot is that of the teacher's weights; KD rows"
                    " are the distilled student's. Biases are digital and are counted beside the"
                    " words where they were trained."
                ),
                (
                    "In every row the cells that forming found stuck take no pulses, and the other"
                    " cell of such a pair makes up for them as far as it can (mapping option"
                    " faults)."
                ),
            ),
        ),
    )


def _key_figures(demo: Demo) -> tuple[model.KeyFigure, ...]:
    rows = {row.name: row for row in mean_rows(demo.results(demo.devices[0]))}
    cost = demo.results(demo.devices[0])[0].cost
    ratios = " and ".join(number(round(ratio)) for _, ratio, _ in cost.ratios)
    return (
        model.KeyFigure(per_cent(rows[RSA].accuracy), "accuracy with sparse adaptation"),
        model.KeyFigure(per_cent(rows[FLOAT].accuracy), "accuracy in floating point"),
        model.KeyFigure(per_cent(rows[ONE_SHOT].accuracy), "accuracy without compensation"),
        model.KeyFigure(
            f"{ratios} times", "as long takes verification by single reads and by coded reads"
        ),
    )


def _table(demo: Demo, device: Device) -> model.ResultTable:
    chips = demo.results(device)

    def row(place: int, mean: Row) -> model.Row:
        accuracy = tuple(chip.rows[place].accuracy for chip in chips)
        if mean.reference:
            return model.Row(mean.name, accuracy[:1], reference=True)
        spent = mean.pulses, mean.reads, mean.vectors, mean.bench_seconds
        return model.Row(mean.name, accuracy, *spent, mean.words)

    rows = tuple(row(k, mean) for k, mean in enumerate(mean_rows(chips)))
    return model.ResultTable(_plain(TITLES[device]), rows, demo.images)


def _cost(device: Device, chips: list[ChipResult]) -> model.Cost:
    chip = chips[0]
    units = units_of(Timing)
    seconds = tuple(
        (words_of(name, "s"), value) for name, value in chip.cost.durations if units[name] == "s"
    )
    equality = equality_text(chips)
    text = (
        "Write-verify grows with the number of cells and with how long a pulse and its"
        " verification take; compensation reads the map once, by codes, trains on the host and"
        f" writes its words. {equality[0].upper()}{equality[1:]}. The paper states 15 to 150 times"
        " from latencies of writing. Bytes are those of the virtual clock's link time."
    )
    return replace(chip.cost, title=_plain(TITLES[device]), durations=seconds, text=text)


def _panel(device: Device, chip: ChipResult) -> model.MapPanel:
    with read_run(chip.path) as run:
        return student_maps(run, f"student on {_plain(TITLES[device])}")


def _plain(text: str) -> str:
    return text.replace("`", "")
