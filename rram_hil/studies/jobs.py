"""The jobs of a study: train a network, form a chip, run an arm on a copy of it.

A job is plain data: what it does depends on nothing but itself and the files it is handed, so that
it runs in any process on any machine, and its digest says whether it was done before.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil import __version__
from rram_hil.bench.recipe_runner import RunOutcome, run_recipe
from rram_hil.errors import AbortedError, BenchError, DataError
from rram_hil.networks.inference import Counts, Prediction
from rram_hil.networks.network import Network, forward
from rram_hil.storage.run_reader import RunFile, read_run
from rram_hil.studies.models import Pictures
from rram_hil.studies.training import Lesson, Training, train
from rram_hil.validation import StrictModel

Kind = Literal["training", "forming", "arm", "method"]
Files = Mapping[str, bytes]
RESULT = "result"
"""The step that says what an arm reaches."""
FORMED = "formed.zip"
"""A formed chip, as its job leaves it and others find it."""
BENCH, FORM, RUN, TEST = "bench.toml", "form.toml", "run.h5", "test.npz"
FORMAT = 1
"""Of records and what they are of: another number, other digests."""


class Right(StrictModel):
    """Which of `images` were classified as labelled: a bit each, packed, in base64."""

    images: int
    bits: str

    @classmethod
    def of(cls, right: NDArray[np.bool_]) -> Right:
        """Of one truth value an image."""
        packed = np.packbits(right).tobytes()
        return cls(images=right.size, bits=base64.b64encode(packed).decode())

    def values(self) -> NDArray[np.bool_]:
        """One truth value an image."""
        packed = np.frombuffer(base64.b64decode(self.bits), dtype=np.uint8)
        return np.unpackbits(packed, count=self.images).astype(np.bool_)


class Record(StrictModel):
    """What a finished job leaves beside its file: its title, and how long the host worked on it."""

    title: str
    host_s: float


class TrainingRecord(Record):
    """Accuracies of a network in floating point on the test images: with the weights as trained
    and, where it was trained with errors, with the weights clipped as they are mapped. The better
    one is its accuracy, and `right` says which images it got right.
    """

    as_trained: float
    clipped: float | None
    right: Right

    @property
    def accuracy(self) -> float:
        """Of the better one: what an arm on a chip is compared with."""
        return self.as_trained if self.clipped is None else max(self.as_trained, self.clipped)


class Costs(StrictModel):
    """What was done on a bench: pulses, single reads, multiplied vectors, and seconds of the bench
    clock: of all, and of the operations of each kind.
    """

    pulses: int = 0
    reads: int = 0
    vectors: int = 0
    bench_s: float = 0.0
    bench_s_by_kind: dict[str, float] = Field(default={})


class FormingRecord(Record):
    """What forming a chip and measuring its pulse curves cost, and how many cells it found
    stuck.
    """

    costs: Costs
    stuck_low_resistance: int
    stuck_high_resistance: int


class ArmRecord(Record):
    """What an arm reached on a chip: accuracy on the test images, and which of them were right; its
    costs without forming and without the inference of the test images; what it keeps in digital
    memory.
    """

    accuracy: float
    right: Right
    costs: Costs = Costs()
    words: int = 0
    digital: int = 0
    fraction: float = 0.0
    bits: int = 0
    mac_share: float = 0.0


@dataclass(frozen=True)
class Done:
    """A job's record and the file it made, if any."""

    record: Record
    file: bytes | None = None


class Work(ABC):
    """What a job does, picklable."""

    @abstractmethod
    def run(self, files: Files, folder: Path) -> Done:
        """Do it in an empty folder, with the files that the job needs by the names it gives
        them.
        """

    @property
    @abstractmethod
    def identity(self) -> Any:
        """What determines its result besides the files, as JSON takes it."""


@dataclass(frozen=True)
class Job:
    """One job. `needs` are jobs whose files it is handed, by the names under which its work knows
    them; `inputs` are other files. `key` names its record. Jobs of one `row` take about as long as
    each other.
    """

    kind: Kind
    title: str
    work: Work
    needs: Mapping[str, Job] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    row: str = ""

    @cached_property
    def key(self) -> str:
        """Tells this job from every other: digest of what determines its result, the version of
        this package too.
        """
        needs = {name: job.key for name, job in self.needs.items()}
        inputs = {name: one.digest for name, one in self.inputs.items()}
        whole = [FORMAT, __version__, self.kind, self.work.identity, needs, inputs]
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        return f"{self.kind}-{digest[:20]}"


@dataclass(frozen=True, eq=False)
class Input:
    """A file that no job makes: images, a device model."""

    digest: str
    content: bytes


@dataclass(frozen=True)
class Failed:
    """A job that could not be done, and why."""

    text: str


def perform(key: str, work: Work, files: Files, scratch: Path | None) -> tuple[str, Done | Failed]:
    """Do a job's work in a new folder of `scratch` (none: of the machine's folder for such), which
    is gone afterwards; what its bench refuses is told, and ends no other job.
    """
    with tempfile.TemporaryDirectory(prefix="rram-hil-study-", dir=scratch) as folder:
        try:
            return key, work.run(files, Path(folder))
        except AbortedError:
            raise
        except BenchError as error:
            return key, Failed(str(error))


@dataclass(frozen=True)
class Train(Work):
    """Train a network on "train.npz" and try it on "test.npz"."""

    training: Training

    @property
    def identity(self) -> Any:
        """The training, whole."""
        return self.training.model_dump(mode="json")

    def run(self, files: Files, folder: Path) -> Done:
        """Its file is the network."""
        began = time.perf_counter()
        networks = {
            need: _loaded(folder / f"{need}.safetensors", files[need])
            for need in self.training.needs
        }
        data = Pictures.read(files["train.npz"]).labelled()
        network = train(self.training, Lesson(networks, data))
        network.save(folder / "trained.safetensors")
        file = (folder / "trained.safetensors").read_bytes()
        noise = self.training.noise
        found = [_right(network, files[TEST])]
        if noise is not None:
            found.append(_right(_clipped(network, noise.clip), files[TEST]))
        as_trained, *clipped = (float(right.mean()) for right in found)
        record = TrainingRecord(
            title=self.training.title,
            host_s=time.perf_counter() - began,
            as_trained=as_trained,
            clipped=clipped[0] if clipped else None,
            right=Right.of(max(found, key=lambda right: right.mean())),
        )
        return Done(record, file)


def _right(network: Network, file: bytes) -> NDArray[np.bool_]:
    """Which test images a network classes as labelled, in floating point."""
    test = Pictures.read(file).labelled()
    return np.asarray(Prediction(forward(network, test.images), Counts()).classes == test.labels)


def _clipped(network: Network, rms: float) -> Network:
    """A network with the weights of each layer cut at `rms` times their root mean square."""
    tops = {name: rms * np.sqrt(np.mean(np.square(w))) for name, w in network.weights.items()}
    return replace(
        network, weights={n: np.clip(w, -tops[n], tops[n]) for n, w in network.weights.items()}
    )


def _loaded(path: Path, content: bytes) -> Network:
    path.write_bytes(content)
    return Network.load(path)


@dataclass(frozen=True)
class Form(Work):
    """Form a chip and measure its pulse curves: a bench file and a recipe."""

    title: str
    bench: str
    recipe: str

    @property
    def identity(self) -> Any:
        """Both files."""
        return [self.bench, self.recipe]

    def run(self, files: Files, folder: Path) -> Done:
        """Its file is a .zip of the chip's state and ledger, and of the run file."""
        began = time.perf_counter()
        _write(folder, {**files, BENCH: self.bench.encode(), FORM: self.recipe.encode()})
        run_recipe(folder / FORM, folder / BENCH, folder / "formed.h5", threads=1)
        with read_run(folder / "formed.h5") as run:
            costs = costs_of(run)
            low, high = (
                int(run.map(f"stuck_{kind}_resistance").values[0].sum()) for kind in ("low", "high")
            )
        kept = ("chip.state", "formed.h5", *(p.name for p in folder.glob("*.ledger.npy")))
        file = _packed(folder, kept)
        record = FormingRecord(
            title=self.title,
            host_s=time.perf_counter() - began,
            costs=costs,
            stuck_low_resistance=low,
            stuck_high_resistance=high,
        )
        return Done(record, file)


@dataclass(frozen=True)
class RunArm(Work):
    """Run an arm's recipe on a copy of a formed chip."""

    title: str
    bench: str
    recipe: str

    @property
    def identity(self) -> Any:
        """Bench file and recipe."""
        return [self.bench, self.recipe]

    def run(self, files: Files, folder: Path) -> Done:
        """It leaves a record alone."""
        began = time.perf_counter()
        run_on_formed(files, self.bench, self.recipe, folder)
        with read_run(folder / RUN) as run:
            record = _arm_record(run, self.title, time.perf_counter() - began)
        return Done(record)


def run_on_formed(files: Files, bench: str, recipe: str, folder: Path) -> RunOutcome:
    """Run a recipe on a copy of the formed chip among the files, "formed.zip"."""
    own = {name: content for name, content in files.items() if name != FORMED}
    _write(folder, {**own, BENCH: bench.encode(), "recipe.toml": recipe.encode()})
    with zipfile.ZipFile(io.BytesIO(files[FORMED])) as formed:
        formed.extractall(folder)
    return run_recipe(folder / "recipe.toml", folder / BENCH, folder / RUN, threads=1)


@dataclass(frozen=True)
class TakeFloat(Work):
    """An arm that needs no chip: its accuracy is that of the network in floating point on the test
    images.
    """

    title: str

    @property
    def identity(self) -> Any:
        """Nothing but the files."""
        return "float"

    def run(self, files: Files, folder: Path) -> Done:
        """It leaves a record alone."""
        began = time.perf_counter()
        network = _loaded(folder / "student.safetensors", files["student.safetensors"])
        right = _right(network, files[TEST])
        took = time.perf_counter() - began
        return Done(
            ArmRecord(
                title=self.title, host_s=took, accuracy=float(right.mean()), right=Right.of(right)
            )
        )


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _packed(folder: Path, names: tuple[str, ...]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in names:
            # A fixed date: the same chip makes the same file.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, (folder / name).read_bytes())
    return file.getvalue()


def _arm_record(run: RunFile, title: str, host_s: float) -> ArmRecord:
    found = run.result(RESULT, "predictions").values == run.result(RESULT, "labels").values
    right = np.asarray(found, dtype=np.bool_)

    def last(name: str) -> float:
        steps = [step for step, saved in run.result_names if saved == name]
        return float(run.result(steps[-1], name).values) if steps else 0.0

    def saved(name: str) -> float:
        return last(f"on_chip_{name}")

    return ArmRecord(
        title=title,
        host_s=host_s,
        accuracy=float(right.mean()),
        right=Right.of(right),
        costs=costs_of(run, without=RESULT),
        words=int(saved("words")),
        digital=int(saved("digital")),
        fraction=saved("fraction"),
        # Words' bits have those of the mapping's order among them.
        bits=int(saved("bits") or last("order_bits")),
        mac_share=saved("mac_share"),
    )


def costs_of(run: RunFile, without: str = "") -> Costs:
    """What the steps of a run cost, but for one. Raises `DataError` where it is not complete."""
    if run.status != "complete":
        raise DataError(f"{run.path}: the run is {run.status}, not complete")
    steps, table = run.table("steps"), run.operations()
    counted = np.asarray(steps["name"] != without)
    mine = np.isin(table["step"], steps["step"][counted])
    seconds = table["ended_s"] - table["started_s"]
    kinds = table["kind"]
    return Costs(
        pulses=int(table["pulses"][mine].sum()),
        reads=int(table["reads"][mine].sum()),
        vectors=int(table["vectors"][mine].sum()),
        bench_s=float((steps["ended_s"] - steps["started_s"])[counted].sum()),
        bench_s_by_kind={
            str(kind): float(seconds[mine & (kinds == kind)].sum()) for kind in np.unique(kinds)
        },
    )
