"""What the demonstration shows: the table on the terminal, summary.json and the report page, all
from the run files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rram_hil.demo.chips import ChipRun, WireCheck
from rram_hil.demo.files import Device
from rram_hil.demo.table import ChipResult, Row, mean_rows, student_maps
from rram_hil.report import model
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
        rows = [
            (
                row.name,
                per_cent(row.accuracy),
                number(row.pulses) if row.name != "float" else "-",
                number(row.reads) if row.name != "float" else "-",
                duration(row.bench_seconds) if row.name != "float" else "-",
                number(row.on_chip_words) if row.on_chip_words else "-",
            )
            for row in mean_rows(chips)
        ]
        output.table(("", ">accuracy", ">pulses", ">reads", ">bench time", ">on-chip words"), rows)
        output.line(_account(chips[0]), indent=2)
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


def _account(chip: ChipResult) -> str:
    cost, hit = chip.cost, chip.programming
    parts = ", ".join(
        f"{part.name} {part.count:,} in {duration(part.seconds)}" for part in cost.adaptation
    )
    return (
        f"one-shot error: sigma {hit.sigma:.3f}, mean {hit.mean:+.3f} of the target over"
        f" {hit.cells:,} cells. Compensation, bench time R-V-W : RSA = {duration(cost.verify_s)} :"
        f" {duration(cost.adaptation_s)} = {cost.ratio:.2f}, on the board alone"
        f" {board_ratio(cost):.2f} (RSA: {parts})."
    )


def board_ratio(cost: model.Cost) -> float:
    """Read-verify-write over adaptation without the link to the host, the last part of each."""
    return sum(p.seconds for p in cost.verify[:-1]) / sum(p.seconds for p in cost.adaptation[:-1])


def write_summary(demo: Demo) -> None:
    """Write summary.json: `rows` of the first device preset (mean over its chips), and everything
    by preset and chip.
    """
    devices = {}
    for device in demo.devices:
        chips = demo.results(device)
        devices[device] = {
            "rows": [asdict(row) for row in mean_rows(chips)],
            "chips": [
                {
                    "run_file": str(chip.path.relative_to(demo.folder)),
                    "rows": [asdict(row) for row in chip.rows],
                    "one_shot_error": asdict(chip.programming),
                    "compensation": (
                        asdict(chip.cost)
                        | {
                            "verify_s": chip.cost.verify_s,
                            "adaptation_s": chip.cost.adaptation_s,
                            "ratio": chip.cost.ratio,
                        }
                    ),
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
            costs=tuple(_cost(device, demo.results(device)[0]) for device in demo.devices),
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
                    " are the distilled student's. Biases are digital and are counted as on-chip"
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
    adapted, exact = rows["KD+RSA"], rows["float"]
    return (
        model.KeyFigure(per_cent(adapted.accuracy), "accuracy with sparse adaptation"),
        model.KeyFigure(per_cent(exact.accuracy), "accuracy in floating point"),
        model.KeyFigure(per_cent(rows["one-shot"].accuracy), "accuracy without compensation"),
        model.KeyFigure(number(adapted.on_chip_words), "on-chip words"),
    )


def _table(demo: Demo, device: Device) -> model.ResultTable:
    chips = demo.results(device)

    def row(place: int, mean: Row) -> model.Row:
        accuracy = tuple(chip.rows[place].accuracy for chip in chips)
        if mean.name == "float":
            return model.Row(mean.name, accuracy[:1], reference=True)
        words = mean.on_chip_words or None
        return model.Row(mean.name, accuracy, mean.pulses, mean.reads, mean.bench_seconds, words)

    rows = tuple(row(k, mean) for k, mean in enumerate(mean_rows(chips)))
    return model.ResultTable(_plain(TITLES[device]), rows, demo.images)


def _cost(device: Device, chip: ChipResult) -> model.Cost:
    units = units_of(Timing)
    seconds = tuple(
        (words_of(name, "s"), value) for name, value in chip.cost.durations if units[name] == "s"
    )
    text = (
        f"Without the link to the host the ratio is {board_ratio(chip.cost):.2f}. Write-verify"
        " grows with the number of cells and with how long a pulse and its verification take;"
        " adaptation grows with the images sent forward, however large the array: small networks"
        " on fast boards favour write-verify, large or slow ones adaptation."
    )
    return replace(chip.cost, title=_plain(TITLES[device]), durations=seconds, text=text)


def _panel(device: Device, chip: ChipResult) -> model.MapPanel:
    with read_run(chip.path) as run:
        return student_maps(run, f"student on {_plain(TITLES[device])}")


def _plain(text: str) -> str:
    return text.replace("`", "")
