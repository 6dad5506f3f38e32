"""Inference: classify images on the array as it is, with its on-chip words where it has some."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rram_hil.array import drive
from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Protocol, Save, Setting
from rram_hil.networks.inference import calibrate, infer
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Section
from rram_hil.report.step import RunStep

from .parts.sections import classified
from .parts.targets import load_images


@dataclass(frozen=True)
class InferSummary:
    """Images, the fraction classified as labelled, and the fraction of ADC codes at full scale."""

    images: int
    accuracy: float
    saturated: float


class Infer(Protocol[InferSummary]):
    """Run the network that an earlier step left under `tag` on the images of a .npz file, every
    product on the array.

    Input steps and ADC ranges come from the first `calibration_images` of `calibration` (training
    data), through the map read last (or the targets), with `margin`.
    """

    tag: str = "network"
    images: str
    calibration: str
    calibration_images: Annotated[int, Field(ge=1)] = 256
    limit: Annotated[int, Field(ge=1)] | None = None
    words: bool = True
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    margin: Annotated[float, Field(gt=0)] = 2.0

    def input_files(self) -> tuple[str, ...]:
        """Images to infer, and to calibrate with."""
        return (self.images, self.calibration)

    def run(self, setting: Setting) -> Plan[InferSummary]:
        """Yields one computation that multiplies on the array; saves predictions, labels and
        accuracy.
        """
        programmed = setting.shared_by(self.tag, Programmed)
        network = programmed.topology()
        images, labels = load_images(setting.folder / self.images)
        images, labels = images[: self.limit], labels[: self.limit]
        ensure_encoding(
            programmed,
            setting,
            self.calibration,
            self.calibration_images,
            self.input_bits,
            self.margin,
        )
        encoding, words = programmed.encoding, programmed.words if self.words else None
        assert encoding is not None
        yield Progress(0, 1, f"inference of {len(images)} images")

        def run(do: Do) -> Arrays:
            made = drive(infer(network, programmed.mapping, encoding, images, words), do)
            counts = made.counts
            return {
                "classes": made.classes,
                "vectors": np.array(sum(counts.vectors.values())),
                "conversions": np.array(sum(counts.conversions.values())),
                "saturated": np.array(sum(counts.saturated.values())),
                "emulated": np.array(counts.emulated),
                "ran": np.array([counts.vectors.get(name, 0) for name in network.matrices]),
            }

        arrays = yield from Compute("inference", run)
        accuracy = float(np.mean(arrays["classes"] == labels))
        saturated = float(arrays["saturated"]) / max(int(arrays["conversions"]), 1)
        yield Save("predictions", arrays["classes"], ("image",))
        yield Save("labels", labels, ("image",))
        yield Save("accuracy", np.array(accuracy), ())
        yield Save("vectors", arrays["vectors"], (), attrs={"emulated": int(arrays["emulated"])})
        yield Save("saturated", np.array(saturated), ())
        names = json.dumps(list(network.matrices))
        yield Save("weight_vectors", arrays["ran"], ("weight",), attrs={"weights": names})
        return InferSummary(len(images), accuracy, saturated)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Accuracy by class, which class was taken for which, and what ran on the array."""
        return classified(step)


def ensure_encoding(
    programmed: Programmed,
    setting: Setting,
    calibration: str,
    count: int,
    input_bits: int,
    margin: float,
) -> None:
    """Input steps and ADC ranges for a programmed network, made once from training images."""
    if programmed.encoding is not None:
        return
    images, _ = load_images(setting.folder / calibration)
    network = programmed.topology()
    gate_v = setting.read.wl_v
    programmed.encoding = calibrate(
        network,
        programmed.mapping,
        images[:count],
        map_s=programmed.map_s,
        words=programmed.words,
        input_bits=input_bits,
        read_v=float(np.max(np.abs(setting.read.cell_v(1)))),
        wl_v=float(np.max(gate_v)) if gate_v is not None else 0.0,
        margin=margin,
        body_v=setting.read.body_v,
        unselected_wl_v=setting.read.unselected_wl_v,
    )
