"""Random sparse adaptation: recover a programmed network by training a few on-chip words; no cell
is written again.

Mohanty et al., IEDM 2017; Charan et al., JXCDC 2020: a small random fraction of the weights also
has a word of on-chip memory, whose product is added to the array's. The array is read once, then
only the words (and the digital biases, which are counted as words) are trained on training data
through the array as it is. Adapters of low rank (Li et al., arXiv 2411.17367; Wu et al., arXiv
2502.19747) are trained alike in place of words.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rram_hil.array import Cells, WriteWords, drive
from rram_hil.engine.protocol import (
    Arrays,
    Compute,
    Do,
    Plan,
    Progress,
    Protocol,
    Save,
    Setting,
)
from rram_hil.errors import ConfigError
from rram_hil.networks.adapters import LEAST_BITS, Adapter
from rram_hil.networks.inference import multiply_layer
from rram_hil.networks.layers import Convolution
from rram_hil.networks.mapping import word_operation
from rram_hil.networks.network import Float32, Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.networks.word_costs import word_costs
from rram_hil.report.section import Axis, Plot, Section, Table, histogram
from rram_hil.report.step import RunStep
from rram_hil.units import Seconds, Unit, count

from .infer import ensure_encoding
from .parts.maps import By, read_network
from .parts.targets import load_images
from .parts.words import flattened, restored, save_costs

if TYPE_CHECKING:
    from torch.nn import Module

    from rram_hil.learning import LabelledImages


@dataclass(frozen=True)
class AdaptationSummary:
    """On-chip words (the values of adapters among them), the digital parameters (biases and scales)
    that were trained with them, their fraction of all weights, the bits of both, the words' share
    of the multiply-accumulates; and what finding them cost: single readings and vectors of the map,
    images through the network, seconds of the host.
    """

    words: int
    digital: int
    fraction: float
    bits: Annotated[int, Unit("bit")]
    mac_share: float
    map_reads: int
    map_vectors: int
    unreadable: int
    forward_images: int
    host_s: Seconds


Choice = Literal["random", "importance", "layers", "low-rank", "none"]


class SparseAdaptation(Protocol[AdaptationSummary]):
    """Read the map, train random words, store them on the chip.

    `forward` says where the forward passes of training run: "map" (on the host, through the map
    that was read, which takes no bench time), or "array" (every product on the chip, the gradient
    through the map). The map is read as `map_by` says: by codes where the bench multiplies, else
    cell by cell. With `teacher` (a .safetensors network) its softened outputs are learnt besides
    the labels. `start` is where the words begin: at "target" they restore their weights. Where the
    student was trained knowing which weights own a word, `word_seed` is the seed of `choose_words`
    that chose them.

    `choice` says which weights own a word: "random"; "importance", those whose error in the map
    would change the loss most (Fisher information, over `importance_images`, times squared error;
    after Charan et al., DAC 2020); "layers", whole layers, the smallest first; "low-rank", none:
    each layer has an adapter beside it, of `rank` or of the largest rank that `fraction` pays for
    (`learning.low_rank_adapters`); or "none", so that the digital parameters alone are trained,
    whatever `fraction` says. Words do at most `mac_share` of the multiply-accumulates. With
    `scales` a digital factor for each output is trained besides the biases.
    """

    tag: str = "network"
    data: str
    teacher: str | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    choice: Choice = "random"
    rank: Annotated[int, Field(ge=1)] | None = None
    mac_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    importance_images: Annotated[int, Field(ge=1)] = 1000
    scales: bool = False
    map_repeat: Annotated[int, Field(ge=1)] = 1
    map_by: By = "either"
    word_seed: Annotated[int, Field(ge=0)] | None = None
    start: Literal["zero", "target"] = "target"
    steps: Annotated[int, Field(ge=1)] = 1500
    batch: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    word_bits: Annotated[int, Field(ge=2, le=16)] = 8
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    calibration_images: Annotated[int, Field(ge=1)] = 256
    margin: Annotated[float, Field(gt=0)] = 1.5
    forward: Literal["map", "array"] = "map"

    @model_validator(mode="after")
    def _affordable(self) -> Self:
        if self.choice == "random" and self.mac_share < self.fraction:
            raise ValueError(
                f"mac_share: {self.mac_share:g} is below fraction {self.fraction:g}, which is the"
                " share that random words have"
            )
        if self.rank is not None and self.choice != "low-rank":
            raise ValueError(f'rank: choice = "{self.choice}" has no adapters; "low-rank" has')
        if self.choice == "low-rank" and self.word_bits < LEAST_BITS:
            raise ValueError(
                f"word_bits: the values of adapters need at least {LEAST_BITS} bits; with"
                f" {self.word_bits} all of them round to zero"
            )
        return self

    def input_files(self) -> tuple[str, ...]:
        """Its images, and its teacher."""
        return (self.data, *filter(None, (self.teacher,)))

    def run(self, setting: Setting) -> Plan[AdaptationSummary]:
        """Yields one read of the mapped cells, one computation, and one write of words; leaves them
        under `tag`.
        """
        programmed = setting.shared_by(self.tag, Programmed)
        network = programmed.topology()
        if self.forward == "array":
            _check_ungrouped(network)
        mapping = programmed.mapping
        yield Progress(0, 3, f"reading {len(mapping.cells)} cells")
        found, unreadable = yield from read_network(
            programmed,
            setting,
            by=self.map_by,
            repeat=self.map_repeat,
            label="map for adaptation",
        )
        ensure_encoding(
            programmed, setting, self.data, self.calibration_images, self.input_bits, self.margin
        )

        yield Progress(1, 3, f"training on-chip words, {self.steps} steps of {self.batch} images")
        arrays = yield from Compute(
            "words", lambda do: self._train(programmed, network, setting, do)
        )
        programmed.trained = None
        programmed.words = words = restored(arrays, network.matrices)
        # The words change what the layers pass on, so inputs and ADC ranges are chosen anew for
        # inference.
        programmed.encoding = None
        yield Progress(2, 3, "writing on-chip words")
        own = word_operation(mapping, words, self.word_bits)
        yield from _beside(own, programmed, setting)
        images, _ = load_images(setting.folder / self.data)
        seeded = self.choice != "importance"
        cost = word_costs(
            network,
            words,
            images.shape[1:],
            self.word_bits,
            seeded=seeded,
            order_bits=mapping.order_bits,
        )
        for name, layer in words.items():
            yield Save(f"words_{name}", layer.values, (f"word_{name}",), attrs={"step": layer.step})
            yield Save(f"word_index_{name}", layer.indices, (f"word_{name}",))
            if layer.adapter is not None:
                yield from _save_adapter(name, layer.adapter)
        yield from save_costs(cost)
        yield Save("forward_images", arrays["forward_images"], ())
        yield Save("host_s", arrays["host_s"], (), "s")
        return AdaptationSummary(
            cost.words,
            cost.digital,
            cost.fraction,
            cost.bits,
            cost.mac_share,
            found.reads,
            found.vectors,
            unreadable,
            int(arrays["forward_images"]),
            float(arrays["host_s"]),
        )

    def _train(self, programmed: Programmed, network: Network, setting: Setting, do: Do) -> Arrays:
        try:
            from rram_hil import learning
        except ImportError as error:
            raise ConfigError(f"{error}") from None
        assert programmed.map_s is not None
        mapping, encoding = programmed.mapping, programmed.encoding
        assert encoding is not None
        began = time.perf_counter()  # the host's own work, which no bench clock tells
        student = network.to_torch()
        measured = mapping.effective_weights(programmed.map_s)
        names = list(network.matrices)
        seed = int(setting.rng("words").integers(1 << 31))
        places = seed if self.word_seed is None else self.word_seed
        images, labels = load_images(setting.folder / self.data)
        data = learning.LabelledImages(images, labels)
        masks, ranks = self._places(network, student, measured, data, places)

        def array_multiply(layer: int, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
            codes, _ = encoding.encode(names[layer], vectors)
            return drive(multiply_layer(mapping, encoding, names[layer], codes), do).T

        found = learning.train_words(
            student,
            [measured[name] for name in names],
            masks,
            data,
            teacher=None
            if self.teacher is None
            else Network.load(setting.folder / self.teacher).to_torch(),
            word_bits=self.word_bits,
            input_bits=self.input_bits,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=seed,
            start=self.start,
            scales=self.scales,
            ranks=ranks,
            array_multiply=array_multiply if self.forward == "array" else None,
            threads=setting.threads,
        )
        return flattened(dict(zip(names, found.layers, strict=True))) | {
            "forward_images": np.array(found.forward_images),
            "host_s": np.array(time.perf_counter() - began),
        }

    def _places(
        self,
        network: Network,
        student: Module,
        measured: dict[str, Float32],
        data: LabelledImages,
        places: int,
    ) -> tuple[list[NDArray[np.bool_]], list[int]]:
        """Which weights own a word, a mask for each layer, and the rank of its adapter."""
        from rram_hil import learning

        image, ranks = data.images[:1], [0] * len(network.matrices)
        if self.choice == "none":
            masks = [np.zeros(shape, dtype=np.bool_) for shape in network.matrices.values()]
        elif self.choice == "random":
            masks = learning.choose_words(student, self.fraction, places, scales=self.scales)
        elif self.choice == "layers":
            masks = learning.small_layers_first(
                student,
                self.fraction,
                image=image,
                mac_share=self.mac_share,
                seed=places,
                scales=self.scales,
            )
        elif self.choice == "low-rank":
            ranks, masks = learning.low_rank_adapters(
                student,
                self.fraction,
                rank=self.rank,
                image=image,
                mac_share=self.mac_share,
                scales=self.scales,
            )
        else:
            masks = learning.important_words(
                student,
                self._importance(network, measured, data, places),
                self.fraction,
                image=image,
                mac_share=self.mac_share,
                scales=self.scales,
            )
        return masks, ranks

    def _importance(
        self, network: Network, measured: dict[str, Float32], data: LabelledImages, seed: int
    ) -> list[NDArray[np.floating]]:
        """How much the error of each weight would change the loss."""
        from rram_hil import learning

        # The array as it is, so that what its errors do together counts too.
        held = network.with_weights({name: measured[name] for name in network.matrices})
        fisher = learning.weight_sensitivities(
            held.to_torch(), data, "fisher", images=self.importance_images, seed=seed
        )
        return [
            found * np.square(network.weights[name] - measured[name])
            for name, found in zip(network.matrices, fisher, strict=True)
        ]

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """The words of each layer: how many, and how large."""
        layers = [n.removeprefix("word_index_") for n in step.names if n.startswith("word_index_")]
        words = {name: step.saved(f"words_{name}") for name in layers}
        whole = np.concatenate([np.zeros(0), *(w.values.ravel() for w in words.values())])
        rows = tuple(
            (
                name,
                count(saved.values.size),
                count(int(np.count_nonzero(saved.values))),
                f"{float(saved.attributes['step']):.4g}",
            )
            for name, saved in words.items()
        )
        table = Table("On-chip words", ("weight", ">words", ">not 0", ">weight of one step"), rows)
        if not whole.size:
            return Section("No weight owns a word: digital parameters alone were trained.")
        bits = f"{count(whole.size)} words over {len(layers)} weights."
        return Section(
            bits,
            (
                Plot(
                    "Values of the words",
                    Axis("value of a word, in its steps"),
                    Axis("words in a bin"),
                    (histogram(whole),),
                ),
            ),
            tables=(table,),
        )


def _check_ungrouped(network: Network) -> None:
    """Raise `ConfigError` for a grouped convolution, of which training would have to say which
    group's inputs it sends.
    """
    for name, layer in network.products.items():
        if isinstance(layer, Convolution) and layer.groups > 1:
            raise ConfigError(
                f'forward: "array" trains through no grouped convolution, as layer {name} is; take'
                ' "map"'
            )


def _save_adapter(name: str, adapter: Adapter) -> Plan[None]:
    rank = f"rank_{name}"
    yield Save(
        f"adapter_in_{name}",
        adapter.inward,
        (rank, f"input_{name}"),
        attrs={"step": adapter.inward_step},
    )
    yield Save(
        f"adapter_out_{name}",
        adapter.outward,
        (f"output_{name}", rank),
        attrs={"step": adapter.outward_step},
    )


def _beside(own: WriteWords, programmed: Programmed, setting: Setting) -> WriteWords:
    """The words of one network with those of the other networks on the chip, since writing erases
    all; of a network whose cells belong to this one now, none are left.
    """
    taken = set(programmed.mapping.cells.index(setting.geometry).tolist())
    cells, values = [own.cells.index(setting.geometry)], [own.values]
    for other in setting.shared.values():
        if not isinstance(other, Programmed) or other is programmed or other.words is None:
            continue
        if taken.isdisjoint(other.mapping.cells.index(setting.geometry).tolist()):
            theirs = word_operation(other.mapping, other.words, 32)
            cells.append(theirs.cells.index(setting.geometry))
            values.append(theirs.values)
        else:
            other.words = other.trained = None
    if len(cells) == 1:
        return own
    together = Cells.from_index(np.concatenate(cells), setting.geometry)
    return replace(own, cells=together, values=np.concatenate(values))
