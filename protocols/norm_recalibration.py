"""Norm recalibration: give every output of a programmed network the mean and the spread that it has
in floating point, by its digital bias and scale. Nothing is trained and no cell is written.

Joshi et al., Nature Communications 11 (2020), doi 10.1038/s41467-020-16108-9, measure the
statistics of batch norms anew on the programmed chip, with 2,600 images; L1 and TopK batch norms
are those of Hoffer et al., NeurIPS 2018, arXiv 1803.01814.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rram_hil.array import drive
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Protocol, Save, Setting
from rram_hil.networks.inference import Counts, multiply_values
from rram_hil.networks.mapping import LayerWords
from rram_hil.networks.network import Float32, Network, Weighted, product
from rram_hil.networks.programmed_network import Programmed
from rram_hil.networks.recalibration import Spread, recalibrate
from rram_hil.networks.word_costs import word_costs
from rram_hil.report.section import Axis, Plot, Section, cumulative
from rram_hil.report.step import RunStep
from rram_hil.units import Unit

from .infer import ensure_encoding
from .parts.maps import By, read_network
from .parts.targets import load_images
from .parts.words import flattened, restored, save_costs


@dataclass(frozen=True)
class RecalibrationSummary:
    """Images; biases and scales that were set, their bits, and how many scales are at their bound;
    what it cost: single readings and vectors of the map, cells without a reading, and vectors of
    the images through the array.
    """

    images: int
    digital: int
    bits: Annotated[int, Unit("bit")]
    at_bound: int
    map_reads: int
    map_vectors: int
    unreadable: int
    forward_vectors: int


class NormRecalibration(Protocol[RecalibrationSummary]):
    """Read the map, then set biases and scales of the network under `tag` so that every output has
    over the first `images` of `data` (training images) the mean and spread of its floating-point
    network: layer after layer, each measured with those before it corrected. `aim` says which:
    "trained", as its file holds it, or "clipped", its weights cut where the mapping cuts them; that
    is the one to aim at where it was trained so.

    `spread` is "l2" (the standard deviation), "l1" (the mean absolute deviation) or "topk" (the
    mean of the share `largest` of the absolute deviations). `forward` says where the products come
    from: "map" (on the host, through the map that was read) or "array" (on the chip; `input_bits`,
    `calibration_images` and `margin` are then those of inference afterwards, too). On-chip words
    and adapters of an earlier step stay as they are. A network whose layers share a weight, or use
    it again and again (recurrent ones), is refused.
    """

    tag: str = "network"
    data: str
    images: Annotated[int, Field(ge=2)] = 2600
    aim: Literal["trained", "clipped"] = "trained"
    spread: Spread = "l2"
    largest: Annotated[float, Field(gt=0, le=1)] = 0.1
    map_repeat: Annotated[int, Field(ge=1)] = 1
    map_by: By = "either"
    word_bits: Annotated[int, Field(ge=2, le=16)] = 8
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    calibration_images: Annotated[int, Field(ge=1)] = 256
    margin: Annotated[float, Field(gt=0)] = 2.0
    forward: Literal["map", "array"] = "map"

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.spread != "topk" and "largest" in self.model_fields_set:
            raise ValueError(f'largest: goes with spread = "topk", not "{self.spread}"')
        return self

    def input_files(self) -> tuple[str, ...]:
        """Its images."""
        return (self.data,)

    def run(self, setting: Setting) -> Plan[RecalibrationSummary]:
        """Yields one read of the mapped cells and one computation, or two with the array; leaves
        biases and scales under `tag`.
        """
        programmed = setting.shared_by(self.tag, Programmed)
        network, mapping = programmed.topology(), programmed.mapping
        images, _ = load_images(setting.folder / self.data)
        images = images[: self.images]
        yield Progress(0, 2, f"reading {len(mapping.cells)} cells")
        found, unreadable = yield from read_network(
            programmed, setting, by=self.map_by, repeat=self.map_repeat, label="map for norms"
        )
        assert programmed.map_s is not None
        held = {n: replace(own, scale_values=_NONE) for n, own in (programmed.words or {}).items()}
        weights = mapping.effective_weights(programmed.map_s, words=held)

        def on_map(do: Do) -> Arrays:
            return flattened(
                self._recalibrated(
                    programmed,
                    images,
                    lambda layer, x: product(layer, weights[layer.weight_name], x),
                )
            )

        yield Progress(1, 2, f"norms over {len(images)} images")
        arrays = yield from Compute("norms", on_map)
        programmed.trained, programmed.words = (
            None,
            _beside(restored(arrays, network.matrices), held),
        )
        vectors = 0
        if self.forward == "array":
            ensure_encoding(
                programmed,
                setting,
                self.data,
                self.calibration_images,
                self.input_bits,
                self.margin,
            )
            arrays = yield from Compute(
                "norms on the array",
                lambda do: self._through_array(programmed, network, images, do),
            )
            vectors = int(arrays["vectors"])
            # What the array adds of itself is measured in these ranges, so inference keeps them.
            programmed.trained = programmed.words
            programmed.words = _beside(restored(arrays, network.matrices), held)
        words = programmed.words
        for name, layer in words.items():
            outputs = (f"output_{name}",)
            yield Save(
                f"scales_{name}", layer.scale_values, outputs, attrs={"step": layer.scale_step}
            )
            if layer.bias_values.size:
                yield Save(
                    f"biases_{name}", layer.bias_values, outputs, attrs={"step": layer.bias_step}
                )
        # Where words stand already, what says where they sit is counted: no seed is known here.
        cost = word_costs(
            network,
            words,
            images.shape[1:],
            self.word_bits,
            seeded=False,
            order_bits=mapping.order_bits,
        )
        yield from save_costs(cost)
        yield Save("forward_images", np.array(len(images)), ())
        top = 2 ** (self.word_bits - 1) - 1
        return RecalibrationSummary(
            len(images),
            cost.digital,
            cost.digital * self.word_bits,
            sum(int((np.abs(layer.scale_values) == top).sum()) for layer in words.values()),
            found.reads,
            found.vectors,
            unreadable,
            vectors,
        )

    def _through_array(
        self, programmed: Programmed, network: Network, images: Float32, do: Do
    ) -> Arrays:
        mapping, encoding = programmed.mapping, programmed.encoding
        words = programmed.words or {}
        assert encoding is not None
        counts = Counts()

        def multiply(layer: Weighted, values: Float32) -> Float32:
            own = words.get(layer.weight_name)
            return drive(multiply_values(mapping, encoding, layer, values, own, counts), do)

        found = flattened(self._recalibrated(programmed, images, multiply))
        return found | {"vectors": np.array(sum(counts.vectors.values()))}

    def _recalibrated(
        self,
        programmed: Programmed,
        images: Float32,
        multiply: Callable[[Weighted, Float32], Float32],
    ) -> dict[str, LayerWords]:
        network = programmed.topology()
        return recalibrate(
            network,
            images,
            multiply,
            aim=programmed.mapping.clipped(network.weights) if self.aim == "clipped" else None,
            spread=self.spread,
            largest=self.largest,
            bits=self.word_bits,
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """The factor that each output was given, layer by layer."""
        scales = {
            name.removeprefix("scales_"): step.saved(name)
            for name in step.names
            if name.startswith("scales_")
        }
        values = {
            name: saved.values * float(saved.attributes["step"]) for name, saved in scales.items()
        }
        drawn = tuple(cumulative(v, name) for name, v in values.items() if v.size)
        plot = Plot(
            "Scales", Axis("factor of an output"), Axis("share of outputs"), drawn, "Bands: 95 %."
        )
        return Section("", (plot,)) if drawn else None


_NONE: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


def _beside(
    digital: Mapping[str, LayerWords], held: Mapping[str, LayerWords]
) -> dict[str, LayerWords]:
    """Biases and scales with the on-chip words that are held already."""
    return {
        name: replace(
            own,
            indices=held[name].indices,
            values=held[name].values,
            step=held[name].step,
            adapter=held[name].adapter,
        )
        if name in held
        else own
        for name, own in digital.items()
    }
