"""Kill runs again and again, at random times and exactly at a write, with other runs in between and
journals that lose their end, and see that nothing committed is lost, no budget passed, and no
chip's history forked.

`python benchmarks/kill_campaign.py [--kills 200] [--seed 1]` prints the table of docs/safety.md.

Each chip lives in a folder: a run is begun, killed and resumed until it is complete or refused,
then the next begins. What each cell really took is read from the simulated chip, never from the
package's own counting. Linux, with a C compiler (kills at a write need tests/helpers/crash_shim.c).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from small_bench import PULSES, bench_toml

from rram_hil.array import Cells
from rram_hil.bench import bench as bench_module
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.bench.plugins import driver_class, protocol_class
from rram_hil.bench.recipe_runner import run_recipe
from rram_hil.drivers.simulated_array import SimulatedArray
from rram_hil.hardware.driver import Capabilities
from rram_hil.protocols.forming import Forming
from rram_hil.simulation.chip import SimulatedChip
from rram_hil.storage.journal import JournalReader, holds_run
from rram_hil.storage.ledger_file import Content, read_ledger
from rram_hil.storage.run_state import journal_of
from rram_hil.types import IntArray

SHIM = Path(__file__).parents[1] / "tests" / "helpers" / "crash_shim.c"
ROWS, COLUMNS = 6, 6
BUDGET = 15
REFUSED, FAILED = 3, 1
OTHERWISE = "a run ended otherwise than complete, or refused for its lost end"
BENCH = bench_toml("c1", ROWS, COLUMNS, 100_000)
RECIPE = f"""\
[[step]]
protocol = "one-shot"
targets.map = "top.npy"
set.gate = {{ volts_v = [2.0, 3.0], conductance_s = [10e-6, 100e-6] }}

[[step]]
protocol = "write-verify"
targets.map = "bottom.npy"
max_pulses = {BUDGET}
{PULSES}
[[step]]
name = "by host"
protocol = "write-verify"
targets.map = "last.npy"
on_board = "never"
max_pulses = {BUDGET}
{PULSES}
[[step]]
protocol = "read-map"
"""
OTHER = """\
[[step]]
protocol = "one-shot"
targets.map = "other.npy"
set.gate = { volts_v = [2.0, 3.0], conductance_s = [10e-6, 100e-6] }
"""
ALLOWED = {
    "run": np.repeat([2, 2, BUDGET, BUDGET, BUDGET, 0], COLUMNS).reshape(1, ROWS, COLUMNS),
    "other": np.full((1, ROWS, COLUMNS), 2),
}
"""The most pulses that a whole run may give each cell, by its recipe."""


class WithoutRecords(SimulatedArray):
    """The simulated array as a bench that keeps no records, like source-meters."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, counters=False)

    def executed(self, number: int, cells: Cells) -> IntArray | None:
        return None

    def last_number(self) -> int:
        return 0


@dataclass
class Tally:
    """What the campaign did, and what it found wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)


def prepare(folder: Path) -> None:
    """A formed chip, its bench, and both recipes."""
    folder.mkdir()
    (folder / "bench.toml").write_text(BENCH)
    (folder / "run.toml").write_text(RECIPE)
    (folder / "other.toml").write_text(OTHER)
    levels = np.linspace(20e-6, 90e-6, ROWS * COLUMNS).reshape(1, ROWS, COLUMNS)
    for name, rows in (("top", (0, 2)), ("bottom", (2, 4)), ("last", (4, 5)), ("other", (0, 6))):
        targets = np.full((1, ROWS, COLUMNS), np.nan)
        targets[:, slice(*rows)] = levels[:, slice(*rows)]
        np.save(folder / f"{name}.npy", targets)
    with Bench.open(folder / "bench.toml") as bench:
        bench.run(Forming())


class Life:
    """One chip, and the runs on it."""

    def __init__(self, folder: Path, draw: random.Random, tally: Tally) -> None:
        self.folder, self.draw, self.tally = folder, draw, tally
        file = load_bench_file(folder / "bench.toml")
        assert file.simulation is not None
        self.file, self.simulation = file, file.simulation
        self.given: dict[str, IntArray] = {}
        self.truth = self._truth()
        self.ledger = self._ledger()
        self.begins: dict[str, bytes] = {}

    def _truth(self) -> IntArray:
        chip = SimulatedChip(
            self.file.chip.geometry,
            self.simulation,
            read_v=self.file.limits.read_v,
            chip_id="c1",
            folder=self.folder,
        )
        pulses = chip.pulses.copy()
        chip.close()
        return pulses

    def _ledger(self) -> Content:
        return read_ledger(self.file.ledger_path, "c1", self.file.chip.geometry)

    def process(self, name: str, recipe: str, death: dict[str, Any]) -> int | None:
        """Begin or resume a run in a process of its own; its exit status, None if it was killed."""
        path = self.folder / f"{name}.h5"
        child = os.fork()
        if child == 0:
            os._exit(self._child(path, recipe, death))
        timer = threading.Timer(death.get("after_s", 100.0), os.kill, (child, signal.SIGKILL))
        timer.start()
        _, status = os.waitpid(child, 0)
        timer.cancel()
        died = os.WIFSIGNALED(status)
        self.tally.counts["killed"] += died
        self._judge(name, recipe, death)
        return None if died else os.waitstatus_to_exitcode(status)

    def _child(self, path: Path, recipe: str, death: dict[str, Any]) -> int:
        from rram_hil.errors import DataError

        os.environ.update({f"CRASH_{k.upper()}": str(v) for k, v in death.items()})
        try:
            resume = holds_run(journal_of(path))
            run_recipe(
                self.folder / f"{recipe}.toml", self.folder / "bench.toml", path, resume=resume
            )
        except DataError as error:
            print(f"refused: {error}", file=sys.stderr)
            return REFUSED
        except BaseException as error:
            print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
            return FAILED
        return 0

    def _judge(self, name: str, recipe: str, death: dict[str, Any]) -> None:
        """What must hold whenever a process ends, however."""
        where = f"{self.folder.name}, {name} after {death}"
        expect = self.tally.expect
        before, self.truth = self.truth, self._truth()
        self.given[name] = self.given.get(name, 0 * before) + self.truth - before
        over = np.argwhere(self.given[name] > ALLOWED[recipe])[:, 1:].tolist()
        expect(not over, f"a budget was passed (cells {over}): {where}")
        old, self.ledger = self.ledger, self._ledger()
        counts = self.ledger.counts.reshape(self.truth.shape)
        expect(bool((counts >= self.truth).all()), f"the ledger is below the truth: {where}")
        is_one = self.ledger.id == old.id and self.ledger.count >= old.count
        expect(is_one, f"the chip's history was forked: {where}")
        journal = journal_of(self.folder / f"{name}.h5")
        if journal.exists() and holds_run(journal):
            reader = JournalReader(journal)
            for _ in reader:
                pass
            kept = journal.read_bytes()[: reader.whole_bytes]
            expect(
                kept.startswith(self.begins.get(name, b"")), f"a committed frame is lost: {where}"
            )
            self.begins[name] = kept

    def lose_end(self, name: str) -> bool:
        """The journal loses some frames at its end, as on a disk that lied; whether it did."""
        journal = journal_of(self.folder / f"{name}.h5")
        if not (journal.exists() and holds_run(journal)):
            return False
        places = [entry.offset for entry in JournalReader(journal).entries()]
        if len(places) < 4:
            return False
        at = places[-self.draw.randint(1, min(6, len(places) - 2))]
        os.truncate(journal, at)
        self.begins[name] = journal.read_bytes()
        self.tally.counts["journals that lost their end"] += 1
        return True


def moment(draw: random.Random, calls: dict[str, int], took_s: float) -> dict[str, Any]:
    """When a process is to die."""
    if draw.random() < 0.3:
        return {"after_s": draw.uniform(0.1, 1.0) * took_s}
    match = draw.choices(list(calls), [4, 4, 1])[0]
    at = 1 + int(draw.random() ** 2 * calls[match])
    return {"match": match, "at": at, "when": draw.choice(["before", "half", "after"])}


def measure(life: Life) -> dict[str, int]:
    """How many calls a whole run makes on each kind of file."""
    log = life.folder / "calls"
    status = life.process("whole", "run", {"match": "/", "at": 0, "log": str(log)})
    assert status == 0
    made = log.read_text().splitlines()
    return {
        match: sum(match in line for line in made) for match in (".journal", ".ledger.npy", "/.run")
    }


def live(life: Life, kills: int, calls: dict[str, int]) -> None:
    """Run after run on one chip, until `kills` processes were killed."""
    counts, draw = life.tally.counts, life.draw
    number = 0
    while counts["killed"] < kills:
        number += 1
        name = f"run{number}"
        counts["runs"] += 1
        lost = False
        for _ in range(12):
            death = moment(draw, calls, 0.6) if counts["killed"] < kills else {}
            status = life.process(name, "run", death)
            if status is not None:
                break
            if draw.random() < 0.35:
                between(life, f"{name}other{counts['killed']}", calls)
            if draw.random() < 0.2:
                lost = life.lose_end(name) or lost
        else:
            status = life.process(name, "run", {})
        counts[{0: "runs completed", REFUSED: "runs refused"}.get(status or 0, "runs failed")] += 1
        is_right = status == 0 or (status == REFUSED and lost)
        life.tally.expect(is_right, f"{OTHERWISE}: {name}, with {status}")


def between(life: Life, name: str, calls: dict[str, int]) -> None:
    """Another run on the same chip; now and then it is killed, too, and left."""
    life.tally.counts["other runs in between"] += 1
    death = moment(life.draw, calls, 0.3) if life.draw.random() < 0.3 else {}
    status = life.process(name, "other", death)
    life.tally.expect(status in (0, None), f"{OTHERWISE}: {name}, with {status}")


def campaign(base: Path, kills: int, seed: int) -> dict[str, Tally]:
    """Kill processes on a bench with records and on one without, `kills` on each."""
    for protocol in ("one-shot", "write-verify", "read-map"):
        protocol_class(protocol)
    drivers: dict[str, Callable[..., Any]] = {
        "board with records": driver_class,
        "bench without records": lambda name, folder: WithoutRecords,
    }
    prepare(base / "prepared")
    found = {}
    for number, (kind, driver) in enumerate(drivers.items()):
        bench_module.driver_class = driver  # type: ignore[attr-defined,assignment]
        folder = base / f"chip{number}"
        shutil.copytree(base / "prepared", folder)
        found[kind] = Tally()
        life = Life(folder, random.Random(seed * 10 + number), found[kind])
        calls = measure(life)
        live(life, kills, calls)
    return found


def table(found: dict[str, Tally]) -> str:
    """The tallies as a table in Markdown."""
    rows = [
        "killed",
        "runs",
        "other runs in between",
        "journals that lost their end",
        "runs completed",
        "runs refused",
        "runs failed",
    ]
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(str(t.counts[row]) for t in found.values()) + " |")
    for what in (
        "a committed frame is lost",
        "a budget was passed",
        "the ledger is below the truth",
        "the chip's history was forked",
        OTHERWISE,
    ):
        numbers = (str(sum(w.startswith(what) for w in t.wrong)) for t in found.values())
        lines.append(f"| {what} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def compiled(folder: Path) -> Path:
    """The shim that kills at a write."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise SystemExit("kill_campaign needs a C compiler (cc, gcc or clang)")
    library = folder / "crash_shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SHIM], check=True)
    return library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="on each of the two benches")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the tallies as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_campaign_") as folder:
        if "crash_shim" not in os.environ.get("LD_PRELOAD", ""):
            # The shim must be there before Python is.
            environment = os.environ | {"LD_PRELOAD": str(compiled(Path(folder)))}
            again = subprocess.run([sys.executable, *sys.argv], env=environment, check=False)
            raise SystemExit(again.returncode)
        found = campaign(Path(folder), given.kills, given.seed)
    if given.json:
        print(json.dumps({k: {**t.counts, "wrong": t.wrong} for k, t in found.items()}))
    else:
        print(table(found))
    wrong = [w for tally in found.values() for w in tally.wrong]
    print(*wrong, sep="\n", file=sys.stderr)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
