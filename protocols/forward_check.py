"""A look at a programmed network through the array itself: a few images, beside what the map that
was read lets expect.

A map that is stale, wires that it does not know, an amplifier with an offset: all show as a
difference between the array's logits and the host's. The mean difference of each output can be
taken into the biases of the last layer, which are digital.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import drive
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Protocol, Save, Setting
from rram_hil.errors import ConfigError
from rram_hil.networks.inference import StoredMap, infer
from rram_hil.networks.mapping import LayerWords, word_operation
from rram_hil.networks.network import Linear, Network
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Axis, Line, Plot, Section, histogram
from rram_hil.report.step import RunStep

from .infer import ensure_encoding
from .parts.targets import load_images


@dataclass(frozen=True)
class CheckSummary:
    """Images, vectors through the array, the fraction classified as labelled, the fraction that
    array and host classify alike, and the root mean square difference of their logits over that of
    the logits; biases that were corrected.
    """

    images: int
    vectors: int
    accuracy: float
    agreement: float
    difference: float
    corrected: int


class ForwardCheck(Protocol[CheckSummary]):
    """Run the first `images` of `data` (training images) through the array with the words of the
    network under `tag`, and compare with the host's forward pass from the map read last.

    With `correct_biases` the mean difference of each output is added to the last layer's biases,
    where that layer has digital biases of its own: those that were trained with the words.
    """

    tag: str = "network"
    data: str
    images: Annotated[int, Field(ge=1)] = 64
    correct_biases: bool = False
    calibration_images: Annotated[int, Field(ge=1)] = 256
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    margin: Annotated[float, Field(gt=0)] = 2.0

    def input_files(self) -> tuple[str, ...]:
        """Its images."""
        return (self.data,)

    def run(self, setting: Setting) -> Plan[CheckSummary]:
        """Yields one computation that multiplies on the array."""
        programmed = setting.shared_by(self.tag, Programmed)
        network, mapping, words = programmed.topology(), programmed.mapping, programmed.words
        images, labels = load_images(setting.folder / self.data)
        images, labels = images[: self.images], labels[: self.images]
        ensure_encoding(
            programmed, setting, self.data, self.calibration_images, self.input_bits, self.margin
        )
        encoding = programmed.encoding
        assert encoding is not None
        map_s = mapping.target_map_s if programmed.map_s is None else programmed.map_s
        stored = StoredMap(mapping.fill(map_s)[0], setting.capabilities.adc_bits)
        known = programmed.trained or words
        if known is not None:
            stored(word_operation(mapping, known, 32))
        yield Progress(0, 1, f"{len(images)} images through the array")

        def check(do: Do) -> Arrays:
            expected = drive(infer(network, mapping, encoding, images, known), stored).logits
            made = drive(infer(network, mapping, encoding, images, words), do)
            vectors = np.array(sum(made.counts.vectors.values()))
            return {"expected": expected, "logits": made.logits, "vectors": vectors}

        arrays = yield from Compute("forward check", check)
        expected, logits = arrays["expected"], arrays["logits"]
        shift = np.mean(expected - logits, axis=0)
        corrected = 0
        if self.correct_biases and words is not None:
            last = _scoring_weight(network)
            changed = _shifted(words[last], shift)
            corrected = changed.bias_values.size
            programmed.trained, programmed.words = known, words | {last: changed}
            yield Save("bias_shift", shift, ("class",))
        classes = logits.argmax(axis=1)
        yield Save("logits", logits, ("image", "class"))
        yield Save("expected_logits", expected, ("image", "class"))
        yield Save("vectors", arrays["vectors"], ())
        rms = float(np.sqrt(np.mean(np.square(expected)))) or 1.0
        return CheckSummary(
            len(images),
            int(arrays["vectors"]),
            float(np.mean(classes == labels)),
            float(np.mean(classes == expected.argmax(axis=1))),
            float(np.sqrt(np.mean(np.square(logits - expected)))) / rms,
            corrected,
        )

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Outputs of the array against those that the host expects, and their difference."""
        expected, found = step.values("expected_logits").ravel(), step.values("logits").ravel()
        ends = np.array([min(expected.min(), found.min()), max(expected.max(), found.max())])
        return Section(
            "",
            (
                Plot(
                    "Outputs, array against host",
                    Axis("output on the host, from the map"),
                    Axis("output of the array"),
                    (
                        Line(expected, found, "outputs", look="dots"),
                        Line(ends, ends, "alike", dashed=True),
                    ),
                ),
                Plot(
                    "Difference of the outputs",
                    Axis("array − host"),
                    Axis("outputs in a bin"),
                    (histogram(found - expected),),
                ),
            ),
        )


def _scoring_weight(network: Network) -> str:
    """The weight whose biases are those of the classes. Raises `ConfigError` where the network does
    not end with a linear layer.
    """
    last = network.layers[-1]
    if network.result is None and isinstance(last, Linear) and last.biased and not last.digital:
        own = [x for x in network.layers if isinstance(x, Linear) and x.weight_name == last.name]
        if own == [last]:
            return last.name
    raise ConfigError(
        "correct_biases: the network does not end with a linear layer whose biases are those of the"
        " classes"
    )


def _shifted(words: LayerWords, shift: NDArray[np.floating]) -> LayerWords:
    """Words whose biases are larger by `shift`, in whole steps of theirs; none where there are
    none.
    """
    if words.bias_values.size == 0:
        return words
    steps = np.rint(shift / words.bias_step).astype(np.int32)
    return replace(words, bias_values=words.bias_values + steps)
