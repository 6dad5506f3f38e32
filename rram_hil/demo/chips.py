"""Running the demonstration's chips side by side, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from rram_hil.array import drive
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import parse_bench_file
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.demo.files import AWAITED, IMAGES, Plan, bench_toml, recipe_toml
from rram_hil.demo.table import ChipResult, chip_result
from rram_hil.engine.engine import Watcher
from rram_hil.errors import AbortedError
from rram_hil.networks.inference import infer
from rram_hil.networks.mapping import word_operation
from rram_hil.networks.programmed_network import Programmed


@dataclass(frozen=True)
class WireCheck:
    """The same images inferred in the process and through the simulated board, on one chip state,
    read noise off.
    """

    images: int
    same_predictions: int
    direct_seconds: float
    wire_seconds: float


@dataclass(frozen=True)
class ChipRun:
    """One chip's numbers and, where it was asked for, the check of the wire."""

    plan: Plan
    result: ChipResult
    wire: WireCheck | None


@dataclass(frozen=True)
class Step:
    """A chip begins a step of its recipe; the last has no name."""

    chip: str
    name: str
    index: int
    total: int


Told = Callable[[Step], None]


def run_chip(
    plan: Plan, folder: Path, wire_images: int, watcher: Watcher, threads: int | None = None
) -> ChipRun:
    """Write the bench file and the recipe of one chip into its folder, run them, and read the run
    file.
    """
    here = plan.folder(folder)
    here.mkdir(exist_ok=True)
    (here / "bench.toml").write_text(bench_toml(plan), encoding="utf-8")
    (here / "recipe.toml").write_text(recipe_toml(plan), encoding="utf-8")
    outcome = run_recipe(
        here / "recipe.toml",
        here / "bench.toml",
        here / "run.h5",
        watcher=watcher,
        threads=threads,
        awaits=[here / plan.inputs / name for name in AWAITED.values()],
    )
    wire = _check_wire(here, plan, outcome, wire_images) if wire_images else None
    return ChipRun(plan, chip_result(here / "run.h5"), wire)


@dataclass(frozen=True)
class _Shared:
    """What the processes have in common: the steps that begin, and whether all shall end early."""

    steps: Queue[Step]
    stopped: threading.Event


class Running:
    """Chips that run in processes of their own."""

    def __init__(self, runs: list[Future[ChipRun]], steps: Queue[Step], told: Told) -> None:
        self._runs, self._steps, self._told = runs, steps, told

    def look(self) -> None:
        """Tell the steps that began since; raise the error of a chip that failed."""
        with suppress(Empty):
            while True:
                self._told(self._steps.get_nowait())
        for run in self._runs:
            if run.done():
                run.result()

    def results(self) -> list[ChipRun]:
        """Wait for all of them; raises the first error."""
        while wait(self._runs, timeout=0.2).not_done:
            self.look()
        self.look()
        return [run.result() for run in self._runs]


@contextmanager
def side_by_side(
    plans: list[Plan], folder: Path, wire_images: int, told: Told, threads: int = 1
) -> Iterator[Running]:
    """Run chips in processes of their own, as many at a time as there are processors; the first one
    checks the wire. An error inside of the context, Ctrl-C too, stops them all.

    They begin when `folder` holds the images, and wait again at the first step that needs a network
    until that is there: whoever trains it may do so inside of the context.
    """
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(_end_with_parent)
    with manager:
        shared = _Shared(manager.Queue(), manager.Event())
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            min(len(plans), os.cpu_count() or 1), context, initializer=_end_with_parent
        ) as pool:
            with _single_threaded():
                runs: list[Future[ChipRun]] = [
                    pool.submit(
                        _run_elsewhere, plan, folder, wire_images if k == 0 else 0, shared, threads
                    )
                    for k, plan in enumerate(plans)
                ]
            try:
                yield Running(runs, shared.steps, told)
            except BaseException:
                for run in runs:
                    run.cancel()
                # Nobody waits for the other chips; SIGTERM stops a run in good order, but for one
                # that waits for a network.
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                shared.stopped.set()
                raise


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: a demonstration that is killed leaves
    none behind.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        # No orderly end: the work may be inside of numpy or torch. Run files outlive it.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_elsewhere(
    plan: Plan, folder: Path, wire_images: int, shared: _Shared, threads: int
) -> ChipRun:
    watcher = _Distant(plan.chip, folder, shared)
    watcher.wait_for(IMAGES)
    run = run_chip(plan, folder, wire_images, watcher, threads)
    shared.steps.put(Step(plan.chip, "", watcher.total, watcher.total))
    return run


class _Distant(Watcher):
    """Tells the process that shows progress which step begins, and waits for the network that the
    step needs.
    """

    def __init__(self, chip: str, folder: Path, shared: _Shared) -> None:
        self._chip, self._folder, self._shared = chip, folder, shared
        self.total = 0

    def step(self, name: str, index: int, total: int) -> None:
        self.total = total
        self._shared.steps.put(Step(self._chip, name, index, total))
        if name in AWAITED:
            self.wait_for(AWAITED[name])

    def wait_for(self, name: str) -> None:
        """Wait for a file of the demonstration's folder. Raises `AbortedError` where it never
        comes.
        """
        if not (self._folder / name).exists():
            # Adaptation needs torch, whose import takes seconds: better now than then.
            import rram_hil.learning  # noqa: F401
        while not (self._folder / name).exists():
            if self._shared.stopped.wait(0.05):
                raise AbortedError(f"stopped before {name} was there")


@contextmanager
def _single_threaded() -> Iterator[None]:
    """New processes started inside use one thread each for their matrix products: the chips share
    the processors.
    """
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_wire(folder: Path, plan: Plan, outcome: RunOutcome, images: int) -> WireCheck:
    programmed: Any = outcome.shared["student"]
    assert isinstance(programmed, Programmed)
    network, encoding, words = programmed.topology(), programmed.encoding, programmed.words
    assert encoding is not None
    assert words is not None
    with np.load(folder / plan.inputs / "test.npz") as test:
        pictures = test["images"][:images].astype(np.float32) / np.float32(255)
    classes, seconds = [], []
    for driver in ("simulated-array", "test-chip-board"):
        tables = tomllib.loads(bench_toml(plan, read_noise=False, driver=driver))
        started = time.monotonic()
        with Bench.open(parse_bench_file(tables, path=folder / "bench.toml")) as bench:
            bench.do(word_operation(programmed.mapping, words))
            found = drive(infer(network, programmed.mapping, encoding, pictures, words), bench.do)
        classes.append(found.classes)
        seconds.append(time.monotonic() - started)
    return WireCheck(len(pictures), int(np.sum(classes[0] == classes[1])), seconds[0], seconds[1])
