"""The reference: the accuracy of a network in floating point on the host, kept beside what the
array reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rram_hil.engine.protocol import Arrays, Compute, Do, Plan, Progress, Protocol, Save, Setting
from rram_hil.networks.inference import Counts, Prediction
from rram_hil.networks.network import Network, forward
from rram_hil.report.section import Section
from rram_hil.report.step import RunStep

from .parts.sections import classified
from .parts.targets import load_images


@dataclass(frozen=True)
class ReferenceSummary:
    """Images and the fraction classified as labelled."""

    images: int
    accuracy: float


class Reference(Protocol[ReferenceSummary]):
    """Run a network file (.safetensors) on the images of a .npz file in floating point; no
    operation on the bench.
    """

    network: str
    images: str

    def input_files(self) -> tuple[str, ...]:
        """Network and images."""
        return (self.network, self.images)

    def run(self, setting: Setting) -> Plan[ReferenceSummary]:
        """Yields one computation; saves predictions, labels and accuracy."""
        network = Network.load(setting.folder / self.network)
        images, labels = load_images(setting.folder / self.images)
        yield Progress(0, 1, f"floating point, {len(images)} images")

        def classify(_: Do) -> Arrays:
            return {"classes": Prediction(forward(network, images), Counts()).classes}

        classes = (yield from Compute("reference", classify))["classes"]
        accuracy = float(np.mean(classes == labels))
        yield Save("predictions", classes, ("image",))
        yield Save("labels", labels, ("image",))
        yield Save("accuracy", np.array(accuracy), ())
        return ReferenceSummary(len(images), accuracy)

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Accuracy by class, and which class was taken for which."""
        return classified(step)
