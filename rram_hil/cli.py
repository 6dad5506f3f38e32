"""The command line `rram-hil`: thin; everything that it does is in the package. Heavy modules are
imported by the commands.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rram_hil import __version__
from rram_hil.errors import (
    AbortedError,
    BenchError,
    ConfigError,
    printable,
    shortened,
    told_with_place,
)
from rram_hil.signals import stopping
from rram_hil.terminal.options import BenchArgument, BenchOption, JsonOption, YesOption

if TYPE_CHECKING:
    from rram_hil.catalogue.catalog import Catalog
    from rram_hil.catalogue.entry import CatalogEntry
    from rram_hil.watch.serve import PageOfRun
    from rram_hil.wire.recording import Recorder

REFUSED = 2
STOPPED = 130
_signals: list[int] = []
"""Signals that came since `main` began: an exception raised while a library is imported may be lost
there.
"""

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    context_settings=HELP,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Control RRAM arrays with the hardware in the loop: form, read, program, compensate, infer,"
        " keep everything."
    ),
    epilog="A first run without hardware: rram-hil demo",
)

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="Recipe (TOML): the steps to run.")
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record",
        metavar="FILE",
        help="Also keep what goes over the links, in a new file (JSON lines).",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="Threads of this computer's arithmetic; default: as many as the work is worth.",
    ),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Run file (HDF5), also of a run under way; or its id, of a run in this folder.",
    ),
]


calibrate = typer.Typer(
    rich_markup_mode=None,
    help="Calibrate a bench, fit and check a device model.",
)
app.add_typer(
    calibrate, name="calibrate", short_help="Calibrate a bench; fit a device model, check it."
)


@calibrate.callback(invoke_without_command=True)
def calibrate_options(context: typer.Context) -> None:
    """Calibrate a bench, fit and check a device model."""
    if context.invoked_subcommand is None:
        print(context.get_help())


ledger = typer.Typer(
    rich_markup_mode=None,
    help="The pulses that a chip's cells took over its life: show, put back, add together.",
)
app.add_typer(ledger, name="ledger", short_help="The pulses of a chip's life: show, adopt, merge.")


@ledger.callback(invoke_without_command=True)
def ledger_options(context: typer.Context) -> None:
    """The pulses that a chip's cells took over its life: show, put back, add together."""
    if context.invoked_subcommand is None:
        print(context.get_help())


chip_commands = typer.Typer(rich_markup_mode=None, help="What can be done to a simulated chip.")
app.add_typer(chip_commands, name="chip", short_help="Begin a simulated chip anew.")


@chip_commands.callback(invoke_without_command=True)
def chip_options(context: typer.Context) -> None:
    """What can be done to a simulated chip."""
    if context.invoked_subcommand is None:
        print(context.get_help())


class _ListedFirst(typer.core.TyperGroup):
    """`rram-hil runs FOLDER ...` is `rram-hil runs list FOLDER ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name where there is none."""
        named = args and (args[0] in self.commands or args[0] in HELP["help_option_names"])
        return super().parse_args(ctx, args if named else ["list", *args])


runs = typer.Typer(
    cls=_ListedFirst,
    rich_markup_mode=None,
    help="The runs of folders: find them, tag them, note what is to be known, leave them out."
    " Without a command's name: list, whose filters (--chip, --since, ...) rram-hil runs list -h"
    " tells.",
)
app.add_typer(runs, name="runs", short_help="The runs of folders: find, tag, note, exclude.")

CatalogueFolders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FOLDER]...", help="With all below it; default: this one."),
]
InOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--in", metavar="FOLDER", help="Where the run is; default: here. May be repeated."
    ),
]
KeyArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, the beginning of one, or a run file.")
]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (any place).")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help="Tell what happens; -vv: every operation; -vvv: what goes over the links too.",
        ),
    ] = 0,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", metavar="FILE", help="Also write it here, as with -vv."),
    ] = None,
) -> None:
    """What stands before a command."""
    from rram_hil.terminal.logs import logs

    context.with_resource(logs(verbose, log_file))
    if version:
        print(f"rram-hil {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(short_help="Connect, say what a bench can do, look for defects.")
def check(
    bench: BenchArgument = None,
    no_touch: Annotated[
        bool, typer.Option("--no-touch", help="Identify only; switch no output.")
    ] = False,
    yes: YesOption = False,
    record: RecordOption = None,
) -> None:
    """Connect a bench, say what it can do, and look for shorts, opens and leaky gates without
    stressing a cell.
    """
    from rram_hil.bench.bench import Bench
    from rram_hil.bench.plugins import protocol_class
    from rram_hil.bench.read_limit import try_read_limit
    from rram_hil.terminal.benches import armed_bench_file
    from rram_hil.terminal.console import Output, ProgressWatcher
    from rram_hil.terminal.screens import show_bench, show_look, show_read_limit

    output = Output()
    file = armed_bench_file(bench, is_agreed=yes or no_touch)
    with _recorder(record) as traffic, Bench.open(file, arm=False, traffic=traffic) as opened:
        show_bench(opened, output)
        if no_touch:
            output.line("Not touched: no output was switched (--no-touch).")
            return
        opened.arm()
        if opened.ledger_warning:
            output.line(opened.ledger_warning, "yellow")
        with ProgressWatcher() as watcher:
            watcher.step("look", 1, 1)
            opened.record(None, watcher=watcher)
            found: Any = opened.run(protocol_class("look")())
        opened.safe_off()
        assert opened.ledger is not None
        show_look(found, opened.file, opened.ledger.counts, output)
        if file.simulation is not None:
            show_read_limit(try_read_limit(file), output)
        output.line("Outputs are off, verified.")


@app.command(short_help="Worst-case volts, pulses and time of a recipe, on a model.")
def plan(
    recipe: RecipeArgument,
    bench: BenchOption = None,
    chips: Annotated[
        int,
        typer.Option(
            "--chips", min=0, max=100, metavar="N", help="Other chips of the model to try it on."
        ),
    ] = 5,
    as_json: JsonOption = False,
) -> None:
    """Carry a recipe out on a model of the chip: worst-case volts, pulses and time, before any
    output is on.
    """
    from rram_hil.bench.forecast import plan_recipe
    from rram_hil.terminal.as_json import forecast_json
    from rram_hil.terminal.benches import bench_file
    from rram_hil.terminal.console import Output, ProgressWatcher
    from rram_hil.terminal.screens import show_forecast

    file = bench_file(bench)
    with ProgressWatcher(lasting=False) as watcher:
        forecast = plan_recipe(recipe, file, watcher, chips=chips)
    if as_json:
        print(forecast_json(forecast))
    else:
        show_forecast(forecast, recipe, file, Output())


@app.command(short_help="The layers of a network file, and where its weights go.")
def network(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Network (.safetensors).")],
    bench: Annotated[
        Path | None,
        typer.Option("--bench", "-b", metavar="FILE", help="Bench file whose chip it is for."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the graph of a network, and which weights go to the array and which stay digital; with
    a bench also their tiles, rows and columns, as a recipe without options of its own places them.
    """
    from rram_hil.bench.bench_file import load_bench_file
    from rram_hil.networks.mapping import map_network
    from rram_hil.networks.network import Network
    from rram_hil.networks.placement import places, unplaced
    from rram_hil.terminal.as_json import network_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.screens import show_network

    held = Network.load(file)
    if bench is None:
        placed = unplaced(held)
    else:
        placed = places(map_network(held.weights, load_bench_file(bench).chip.geometry), held)
    if as_json:
        print(network_json(held, placed))
    else:
        show_network(file, held, placed, Output())


@app.command(short_help="Run a recipe, keep everything in a run file.")
def run(
    recipe: RecipeArgument,
    bench: BenchOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Run file to write; default: the recipe's name, .h5, here.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut or aborted.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Let calibrations be written outside the recipe's folder, and over any file.",
        ),
    ] = False,
    yes: YesOption = False,
    record: RecordOption = None,
    threads: ThreadsOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Open a live page of it, by a process of its own.")
    ] = False,
) -> None:
    """Run a recipe on a bench and keep everything in a run file. Ctrl-C stops it within a second,
    outputs off.
    """
    _limit_threads(threads)
    from rram_hil.bench.recipe import load_recipe
    from rram_hil.bench.recipe_runner import is_complete, run_recipe
    from rram_hil.storage.journal import holds_run
    from rram_hil.storage.run_state import journal_of, newest
    from rram_hil.terminal.benches import armed_bench_file
    from rram_hil.terminal.console import Output, ProgressWatcher
    from rram_hil.terminal.screens import show_outcome

    path = out if out is not None else Path(f"{recipe.stem}.h5")
    if path.is_dir():
        raise ConfigError(f"--out {path}: a folder; give the name of a file")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}")
    loaded = load_recipe(recipe)
    file = armed_bench_file(bench, is_agreed=yes)
    if resume and is_complete(loaded, file, path):
        Output().line(f"{path} is complete; nothing to do.")
        Output().command(f"rram-hil show {shlex.quote(str(path))}")
        return
    page = _page_of(path) if watch else None
    with _recorder(record) as traffic, ProgressWatcher() as watcher:
        try:
            outcome = run_recipe(
                loaded,
                file,
                path,
                resume=resume,
                watcher=watcher,
                traffic=traffic,
                threads=threads,
                force=force,
            )
        except AbortedError as error:
            raise AbortedError(
                f"{error}; to go on: add --resume; where that refuses, a step `recall` of a new run"
                f" takes what forming found from {path}",
                outputs_off=error.outputs_off,
            ) from None
        except Exception as error:
            if not isinstance(error, BenchError) and holds_run(journal_of(path)):
                error.add_note("once it is mended, --resume goes on with the run")
            raise
    # A viewer may hold the run file as it was before the last step.
    with newest(outcome.run_file) as written:
        show_outcome(outcome, written, Output())
    if page is not None:
        page.leave()
        Output().line("Its page is there until it is closed.")


def _page_of(run_file: Path) -> PageOfRun:
    """Start the page of a run that is about to begin, and say its address."""
    from rram_hil.terminal.console import Output
    from rram_hil.watch.serve import PageOfRun

    page = PageOfRun(run_file)
    Output().command(page.said)
    return page


@app.command(short_help="A live page of running and finished runs.")
def watch(
    place: Annotated[
        Path,
        typer.Argument(metavar="[FOLDER|RUN]", help="A folder of runs, or one; default: here."),
    ] = Path(),
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help="TCP port; default: 8765, or any that is free."
        ),
    ] = None,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, where there is one.")
    ] = True,
    with_run: Annotated[float | None, typer.Option("--with-run", hidden=True)] = None,
) -> None:
    """Serve a page that follows runs from their journals until Ctrl-C: steps, rates, maps, notes.
    It moves no voltage, and holds for this machine alone, to who has the address.
    """
    from rram_hil.watch.serve import serve_page

    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        serve_page(
            place,
            port=port,
            opens=opens,
            say=lambda address: print(address, flush=True),
            lingers_s=with_run,
        )


@app.command(short_help="Who, when, what; steps, maps and results of a run.")
def show(run_file: RunArgument, as_json: JsonOption = False) -> None:
    """Say who did what and when, what each step cost, and what the maps and results are."""
    from rram_hil.storage.run_state import newest
    from rram_hil.terminal.as_json import run_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.show import show_run

    run_file = _run_file(run_file)
    if as_json:
        with newest(run_file) as opened:
            print(run_json(opened))
        return
    show_run(run_file, Output())


@app.command(short_help="A page of a run, of two compared, or of a chip's life.")
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN] | FOLDER...",
            help="A run (file or id), two to compare, or folders of runs: the chips in them.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Page to write (.html); default: by its subject."
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="DIR", help="Also write the numbers behind every plot."),
    ] = None,
    chip: Annotated[
        str, typer.Option("--chip", metavar="ID", help="With folders: the life of this chip.")
    ] = "",
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench", "-b", metavar="FILE", help="With --chip: bench file, for the chip's ledger."
        ),
    ] = None,
) -> None:
    """Write one HTML file that holds all it shows: what was done, plots of every protocol with
    their numbers, maps and how they changed, calibrations, costs, refusals.
    """
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.report import report_chips, report_runs

    folders = [path.is_dir() for path in paths]
    if any(folders) and not all(folders):
        raise ConfigError("report: give run files, or folders of runs, not both")
    if chip and not all(folders):
        raise ConfigError("report: --chip goes with folders of runs")
    if all(folders):
        report_chips(paths, chip, bench, out, Output())
    else:
        report_runs([_run_file(path) for path in paths], out, csv, Output())


@app.command(short_help="Tables as CSV, arrays as NumPy .npz, a map as a picture.")
def export(
    run_file: RunArgument,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="DIR", help="Write every table as CSV.")
    ] = None,
    npz: Annotated[
        Path | None, typer.Option("--npz", metavar="FILE", help="Write every array into one .npz.")
    ] = None,
    map_name: Annotated[
        str, typer.Option("--map", metavar="NAME", help="Write this map, with --out.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="With --map: .png, .svg or .csv."),
    ] = None,
    save: Annotated[
        int | None,
        typer.Option("--save", metavar="N", help="With --map: its N-th save; default: the last."),
    ] = None,
    tile: Annotated[int, typer.Option("--tile", metavar="N", help="Of a picture: its tile.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Write a run file's tables as CSV, its arrays as NumPy .npz, or one of its maps as a picture
    or a table.
    """
    from rram_hil.storage.export import export_csv, export_npz
    from rram_hil.storage.run_state import newest
    from rram_hil.terminal.console import Output

    if csv is None and npz is None and not map_name:
        raise ConfigError("export: give --csv DIR, --npz FILE or both, or --map NAME")
    if bool(map_name) != (out is not None):
        raise ConfigError("export: --map NAME and --out FILE go together")
    output = Output()
    with newest(_run_file(run_file)) as opened:
        written = [] if csv is None else export_csv(opened, csv, force=force)
        written += [] if npz is None else [export_npz(opened, npz, force=force)]
        if out is not None:
            from rram_hil.report.map_files import export_map

            written.append(export_map(opened, map_name, out, save=save, tile=tile, force=force))
    for path in written:
        output.line(str(path))


@app.command(short_help="The whole job on a simulated chip: no hardware needed.")
def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for its files; default: a new one here."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="MNIST as IDX files; default: scikit-learn's digits."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same table.")] = 1,
    threads: ThreadsOption = None,
) -> None:
    """Program a trained network into a simulated chip, compensate it, and compare: no hardware, no
    downloads.
    """
    _limit_threads(threads or 1)
    from rram_hil.plugins import need_extra

    packages = {"torch": "torch", "scikit-learn": "sklearn"}
    need_extra("demo", "demo", packages | {"matplotlib": "matplotlib", "jinja2": "jinja2"})
    from rram_hil.demo import run_demo

    run_demo(out, data, seed, threads=threads)


@app.command(short_help="Chips x arms x devices, or programming methods; your own study.")
def study(
    what: Annotated[
        str,
        typer.Argument(
            metavar="paper|programming|FILE",
            help="The paper's study, that of programming methods, or a study file (TOML).",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="With `paper`: digits, lenet5, ..."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the model's images.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the study; an unfinished one goes on."
        ),
    ] = None,
    arms: Annotated[
        str, typer.Option("--arms", metavar="A,B", help="With `paper`: these rows alone.")
    ] = "",
    methods: Annotated[
        str,
        typer.Option("--methods", metavar="A,B", help="With `programming`: these rows alone."),
    ] = "",
    devices: Annotated[
        str, typer.Option("--devices", metavar="A,B", help="Not with a file: on these devices.")
    ] = "",
    chips: Annotated[
        int | None, typer.Option("--chips", min=1, metavar="N", help="Chips of each device.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0, metavar="M", help="End in good order after about M."),
    ] = None,
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="ADDRESS", help="Dask scheduler to run on.")
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", help="Processes here; default: one a processor."
        ),
    ] = None,
) -> None:
    """Run every arm, or every programming method, on simulated chips of every device, in many
    processes or on a Dask cluster. The same command goes on with what is not done yet.
    """
    from rram_hil.studies.command import Options, run_command

    def names(text: str) -> list[str]:
        return [name for one in text.split(",") if (name := one.strip())]

    run_command(
        what,
        Options(
            model,
            data,
            out,
            names(arms),
            names(devices),
            chips,
            minutes,
            scheduler,
            workers,
            names(methods),
        ),
    )


@app.command(short_help="The instruments of a simulated bench, for any program.")
def simulate(
    bench: Annotated[
        Path | None, typer.Argument(metavar="[BENCH]", help="Bench file (TOML) with [simulation].")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help='One instrument alone, such as "Keithley 2400".'
        ),
    ] = None,
    load: Annotated[
        float | None,
        typer.Option(
            "--load", metavar="OHM", help="A resistor in place of the array on every channel."
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="With --model: this TCP port; default: any that is free.",
        ),
    ] = 0,
    modules: Annotated[
        str | None,
        typer.Option(
            "--modules",
            metavar="LIST",
            help=(
                "With --model: the models in its slots, from the first, separated by commas, such"
                ' as "B1517A,B1517A,,B1525A".'
            ),
        ),
    ] = None,
) -> None:
    """Start every instrument of a simulated bench, or one alone, print name, model and resource of
    each, and wait for Ctrl-C.
    """
    from rram_hil.bench.standalone import serve, start_bench, start_model

    if (bench is None) == (model is None):
        raise ConfigError("simulate: give a bench file, or --model for one instrument alone")
    if bench is not None and (port or modules is not None):
        raise ConfigError("simulate: --port and --modules go with --model")
    held = None if modules is None else [name.strip() for name in modules.split(",")]
    far_side = None
    try:
        if bench is not None:
            far_side = start_bench(bench, load)
        else:
            load = float("inf") if load is None else load
            far_side = start_model(model or "", load, port, held)
        serve(far_side, lambda: bool(_signals))
    except KeyboardInterrupt:
        return  # how it is meant to end
    finally:
        if far_side is not None:
            far_side.stop()


@app.command(short_help="What is connected, who answers, which driver fits.")
def devices(
    resource: Annotated[
        list[str] | None,
        typer.Option(
            "--resource",
            "-r",
            metavar="R",
            help="Ask here too (sockets cannot be listed); may be repeated.",
        ),
    ] = None,
    probe_serial: Annotated[
        bool,
        typer.Option(
            "--probe-serial", help="Open serial ports and ask; this may reset what hangs there."
        ),
    ] = False,
    models: Annotated[
        bool,
        typer.Option(
            "--models", help="Instead: every model that can be driven, and what was checked of it."
        ),
    ] = False,
    as_json: JsonOption = False,
    record: RecordOption = None,
) -> None:
    """List VISA resources and serial ports, ask who they are with *IDN? alone, and say which driver
    fits. No output moves.
    """
    from rram_hil.bench.discovery import find_devices, known_models
    from rram_hil.terminal.as_json import rows_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.screens import models_table, show_devices

    if models:
        known = known_models()
        print(rows_json(known) if as_json else models_table(known))
        return

    with _recorder(record, is_quiet=as_json) as traffic:
        found = find_devices(resource or (), probe_serial=probe_serial, traffic=traffic)
    if as_json:
        print(rows_json(found))
    else:
        show_devices(found, Output())


@app.command("board-test", short_help="Your own board, rule by rule of the board protocol.")
def board_test(
    port: Annotated[
        str, typer.Argument(metavar="PORT", help="Serial port, or socket://host:port.")
    ],
    baud: Annotated[int, typer.Option("--baud", min=300, help="Line rate.")] = 115200,
    silence_s: Annotated[
        float,
        typer.Option("--silence", min=0.1, max=60, metavar="S", help="Longest silence, s."),
    ] = 1.0,
    read: Annotated[
        list[int] | None,
        typer.Option(
            "--read",
            min=0,
            metavar="CELL",
            help="Read this cell too ((tile x rows + row) x columns + column); may be repeated.",
        ),
    ] = None,
    read_v: Annotated[
        float, typer.Option("--read-v", metavar="V", help="Bit line of a read, V.")
    ] = 0.1,
    gate_v: Annotated[float, typer.Option("--gate-v", metavar="V", help="Word line, V.")] = 0.0,
    pulse_v: Annotated[
        float,
        typer.Option(
            "--pulse-v",
            metavar="V",
            help="Give the first of these cells one pulse, BL - SL in V; below 0 a RESET.",
        ),
    ] = 0.0,
    width_s: Annotated[
        float, typer.Option("--width", metavar="S", help="Of reads and the pulse, s.")
    ] = 1e-6,
    driver: Annotated[
        str, typer.Option("--driver", metavar="NAME", help="Whose boards.")
    ] = "test-chip-board",
    as_json: JsonOption = False,
    record: RecordOption = None,
) -> None:
    """Take a board through its protocol and say which rules it keeps and what it leaves out. No
    line is driven unless cells are given. Exits with 1 where it breaks a rule.
    """
    from rram_hil.bench.plugins import board_examination
    from rram_hil.hardware.examination import Drive, Outcome, Port, Verdict
    from rram_hil.terminal.as_json import rows_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.screens import show_outcomes

    if pulse_v and not read:
        raise ConfigError("--pulse-v: give the cell that takes the pulse (--read)")
    examine = board_examination(driver)
    drive = Drive(tuple(read or ()), read_v, gate_v, pulse_v, width_s)
    found: list[Outcome] = []
    try:
        with _recorder(record, is_quiet=as_json) as traffic:
            found.extend(examine(Port(port, baud, silence_s, traffic), drive))
    finally:
        # What was seen before a board was lost, or the operator stopped, is told too.
        if found and as_json:
            print(rows_json(found))
        elif found:
            show_outcomes(found, Output())
    raise typer.Exit(1 if any(one.verdict is Verdict.BROKEN for one in found) else 0)


@app.command("new", short_help="A starting point: bench, recipe, protocol, driver, ...")
def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="bench, recipe, protocol, driver (of a board), instrument or calibration.",
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.")],
    like: Annotated[
        str,
        typer.Option(
            "--like",
            metavar="EXAMPLE",
            help="Of a bench (simulated, board, 2636b-707b, ...) or recipe (program, ...).",
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder; default: this one, a new one for code."
        ),
    ] = None,
) -> None:
    """Write a commented starting point that works: a bench or recipe file, or a package with a
    plug-in, its tests, and a bench and recipe to try it.
    """
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.starting_points import starting_point

    made, output = starting_point(kind, name, like, out), Output()
    for path in made.write():
        output.line(str(path))
    output.heading("Next", "" if made.folder == Path() else f"in {made.folder}")
    for command in made.commands:
        output.command(command)


@app.command("list", short_help="What is installed, and the package it comes from.")
def list_installed(
    as_json: JsonOption = False,
) -> None:
    """List drivers, instruments, simulators, protocols, calibrations, their kinds, presets and arms
    of studies that are installed, and where each comes from.
    """
    from rram_hil.bench.plugins import installed
    from rram_hil.terminal.as_json import rows_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.screens import show_installed

    if as_json:
        print(rows_json(installed()))
    else:
        show_installed(installed(), Output())


@ledger.command("show", short_help="Where a chip's ledger lies, and what it holds.")
def show_ledger(
    named: BenchArgument = None,
    bench: BenchOption = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="This ledger instead.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where the ledger of a bench's chip lies, how many pulses it counts, and whose."""
    from rram_hil.bench.ledgers import found_ledger
    from rram_hil.terminal.as_json import ledger_json
    from rram_hil.terminal.benches import bench_file
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.screens import show_ledger as show_it

    opened = bench_file(named or bench)
    path = file or found_ledger(opened)
    if as_json:
        print(ledger_json(path, opened))
    else:
        show_it(path, opened, Output())


@ledger.command("adopt", short_help="Put a ledger in its place, or begin one.")
def adopt(
    bench: BenchOption = None,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A ledger of this chip: it is copied.")
    ] = None,
    pulses: Annotated[
        int | None,
        typer.Option(
            "--pulses",
            metavar="N",
            help="The most that a cell may have taken without a ledger: added to every cell.",
        ),
    ] = None,
) -> None:
    """Make a copy of FILE the ledger of a bench's chip, which has none; or begin one, or add to the
    one it has what no ledger knows.
    """
    from rram_hil.bench.ledgers import adopt_ledger
    from rram_hil.terminal.benches import bench_file
    from rram_hil.terminal.console import Output

    path = adopt_ledger(bench_file(bench), file, pulses)
    Output().line(f"The chip's ledger: {path}")


@ledger.command("merge", short_help="Add what a second ledger of the same chip counted.")
def merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="A second ledger of this chip.")],
    bench: BenchOption = None,
    unrelated: Annotated[
        bool,
        typer.Option(
            "--unrelated", help="The two began apart, or it is not known where: add all of both."
        ),
    ] = False,
) -> None:
    """Add to the ledger of a bench's chip what OTHER counted since the two were one. OTHER is
    renamed.
    """
    from rram_hil.bench.ledgers import merge_ledger
    from rram_hil.terminal.benches import bench_file
    from rram_hil.terminal.console import Output

    path = merge_ledger(bench_file(bench), other, unrelated=unrelated)
    Output().line(f"Added to the chip's ledger: {path}")


@chip_commands.command("reset", short_help="Begin a simulated chip anew.")
def reset(named: BenchArgument = None, bench: BenchOption = None) -> None:
    """Begin a simulated chip anew, as its seed makes it, with a ledger at zero. What it was and how
    many pulses it took stays in files beside it. Refused for a real chip.
    """
    from rram_hil.bench.simulated_chip import reset_chip
    from rram_hil.terminal.benches import bench_file
    from rram_hil.terminal.console import Output

    file, output = bench_file(named or bench), Output()
    number, kept = reset_chip(file)
    if not kept:
        output.line(f"Chip {file.chip.id} was never used: there is nothing to begin anew.")
        return
    output.line(f"Chip {file.chip.id} is new; its chapter {number} is kept:")
    for path in kept:
        output.line(str(path), indent=2)


@runs.command("list", short_help="The runs of folders, newest first.")
def list_runs(
    folders: CatalogueFolders = None,
    chip: Annotated[str, typer.Option("--chip", metavar="ID", help="Runs on this chip.")] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="WHEN", help="Begun since 2026-11-01 (UTC), or 12h, 30d, 4w ago."
        ),
    ] = "",
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="With this protocol or step.")
    ] = "",
    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="complete, aborted, failed, interrupted, running or damaged.",
        ),
    ] = "",
    tag: Annotated[str, typer.Option("--tag", metavar="T", help="With this tag.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Excluded ones as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the runs of folders and those below them, newest first: run id, when, chip, title,
    file, status, how long, tags.
    """
    from rram_hil.catalogue.catalog import Catalog
    from rram_hil.terminal.as_json import rows_json
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.runs import show_runs

    catalog = Catalog(*folders or ())
    found = catalog.search(
        chip=chip, since=since, protocol=protocol, status=status, tag=tag, everything=everything
    )
    if as_json:
        print(rows_json(found))
    else:
        show_runs(catalog, found, {"chip": chip, "protocol": protocol, "tag": tag}, Output())


@runs.command("tag", short_help="Give a run tags.")
def tag_run(
    run: KeyArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Words without commas.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take them away instead.")] = False,
    folders: InOption = None,
) -> None:
    """Give a run tags, or take them away. Its file stays as it is."""
    catalog = _catalog_of(run, folders)
    _show_labels((catalog.untag if remove else catalog.tag)(run, *tags))


@runs.command("note", short_help="Write a note to a run.")
def note_run(
    run: KeyArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='Empty ("") to take it away.')],
    folders: InOption = None,
) -> None:
    """Write a note to a run, in the place of an earlier one. Its file stays as it is."""
    _show_labels(_catalog_of(run, folders).note(run, text))


@runs.command("exclude", short_help="Leave a run out of listings.")
def exclude_run(run: KeyArgument, folders: InOption = None) -> None:
    """Leave a run out of listings, but for those with --all. Its file stays as it is."""
    _show_labels(_catalog_of(run, folders).exclude(run))


@runs.command("include", short_help="List an excluded run again.")
def include_run(run: KeyArgument, folders: InOption = None) -> None:
    """List a run again that was excluded."""
    _show_labels(_catalog_of(run, folders).include(run))


def _catalog_of(run: str, folders: list[Path] | None) -> Catalog:
    """The catalogue of these folders, else of the folder of the run file `run`, else of this
    one.
    """
    from rram_hil.catalogue.catalog import Catalog

    if not folders and Path(run).is_file():
        return Catalog(Path(run).parent)
    return Catalog(*folders or ())


def _run_file(named: Path) -> Path:
    """The run file of that name; where there is none and the name may be the beginning of a run id,
    that run of this folder and those below.
    """
    from rram_hil.storage.run_state import journal_of

    is_there = named.exists() or journal_of(named).exists()
    if is_there or not re.fullmatch("[0-9a-f]{6,16}", str(named)):
        return named
    from rram_hil.catalogue.catalog import Catalog

    return Catalog().entry(str(named)).path


def _show_labels(entry: CatalogEntry) -> None:
    from rram_hil.terminal.console import Output
    from rram_hil.terminal.runs import show_labels

    show_labels(entry, Output())


def add_calibrate_commands() -> None:
    """Let the plugins of the entry points `rram_hil.calibrate_commands` add their commands to
    `calibrate`, once.
    """
    from rram_hil.bench.plugins import calibrate_commands

    if not calibrate.registered_commands:
        for register in calibrate_commands():
            register(calibrate)


@cache
def _commands(calibrations: int) -> Any:
    """All commands as typer makes them, with so many of `calibrate`: once, for a process that calls
    `main` many times.
    """
    return typer.main.get_command(app)


def _limit_threads(count: int | None) -> None:
    """How many threads NumPy's products use, here and in simulated instruments; it reads that when
    it is first imported.
    """
    if count is not None:
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)


@contextlib.contextmanager
def _recorder(path: Path | None, *, is_quiet: bool = False) -> Iterator[Recorder | None]:
    """What writes the file of `--record`; says at the end how much there is in it."""
    from rram_hil.terminal.console import Output
    from rram_hil.wire.recording import Recorder

    if path is None:
        yield None
        return
    with Recorder(path) as recorder:
        yield recorder
    if not is_quiet:
        Output().line(f"Recorded {recorder.events} events of the links: {path}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs one command and exits with 0, 2 (refused or failed, one line on stderr) or
    130 (stopped).
    """
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        # A terminal in cp1252 shows "?" for what it has not; a finished run is no error for it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    debug = "--debug" in given
    if "calibrate" in given:
        add_calibrate_commands()
    command = _commands(len(calibrate.registered_commands))
    usage_error: Any = typer.BadParameter.__base__
    _signals.clear()
    try:
        # Until an engine takes over, SIGTERM or a closed terminal unwinds like Ctrl-C: whatever is
        # open is closed with outputs off. A shell's background jobs begin with Ctrl-C ignored;
        # it ends these too.
        for number in stopping():
            signal.signal(number, _interrupt)
        code = command.main(
            [a for a in given if a != "--debug"], prog_name="rram-hil", standalone_mode=False
        )
        if code == STOPPED:  # this typer turns KeyboardInterrupt into it
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except usage_error as error:
        usage = "" if error.ctx is None else f" {error.ctx.get_usage()}"
        _fail(f"{error.format_message()}{usage}", REFUSED, debug)
    except BenchError as error:
        _fail(str(error), STOPPED if isinstance(error, AbortedError) else REFUSED, debug)
    except typer.Abort as error:  # made of an EOFError, which is no Ctrl-C
        _fail(f"a file ended too early: {error.__cause__}", REFUSED, debug)
    except OSError as error:
        _fail(_told(error), REFUSED, debug)
    except KeyboardInterrupt:
        _fail("stopped", STOPPED, debug)
    except Exception as error:  # a bug: of a driver of one's own, or of this package
        line = told_with_place(error)
        _fail(line if debug else f"{line}; --debug shows all of it", REFUSED, debug)


def _told(error: OSError) -> str:
    """What the computer refused, and of which file."""
    told = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {told}" if error.filename else told


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _signals.append(number)
    raise KeyboardInterrupt


def _fail(text: str, status: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    line = shortened(printable(" ".join(text.split())))
    print(f"rram-hil: {line}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
