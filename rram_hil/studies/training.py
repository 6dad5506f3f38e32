"""How a study's networks are trained: descriptions whose digests name the files, so that each is
trained once for all arms that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.networks.network import Network
from rram_hil.studies.devices import Noise
from rram_hil.validation import NotNegative, Positive, StrictModel

if TYPE_CHECKING:
    from torch import nn

    from rram_hil.learning import Augmentation, LabelledImages
    from rram_hil.learning.word_choice import Masks


class Changes(StrictModel):
    """Random changes of training images: `rram_hil.learning.Augmentation` as a study file writes
    it.
    """

    shift: NotNegative = 2.0
    rotation: NotNegative = 10.0
    zoom: NotNegative = 0.1
    shear: NotNegative = 0.1
    flip: bool = False

    def times(self, share: float) -> Changes:
        """Smaller or larger ones."""
        amounts = ("shift", "rotation", "zoom", "shear")
        return self.model_copy(update={name: share * getattr(self, name) for name in amounts})

    def draws(self) -> Augmentation:
        """The same as training takes it."""
        from rram_hil.learning import Augmentation

        return Augmentation(**self.model_dump())


class Places(StrictModel):
    """Where on-chip words will sit, for a student that is trained knowing it: drawn from all
    weights, or whole small layers first and at most `mac_share` of the multiply-accumulates.
    """

    choice: Literal["random", "layers"] = "random"
    fraction: Annotated[float, Field(gt=0, lt=1)]
    mac_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    scales: bool = False

    def masks(self, model: nn.Module, image: NDArray[np.float32]) -> Masks:
        """The weights of each mapped layer that own a word; `image` (1, ...) is one as the network
        takes them.
        """
        from rram_hil.learning import choose_words, small_layers_first

        if self.choice == "random":
            return choose_words(model, self.fraction, self.seed, scales=self.scales)
        return small_layers_first(
            model,
            self.fraction,
            image=image,
            mac_share=self.mac_share,
            seed=self.seed,
            scales=self.scales,
        )


class Training(StrictModel):
    """One training of one network (a name of `rram_hil.studies.models.NETWORKS`).

    Without `noise` it is trained in floating point. With it every batch meets another chip:
    variation-aware training, and knowledge distillation where there is a `teacher` as well (Charan
    et al., JXCDC 2020). It begins as `start`, or as the network's own first weights. `fault_aware`:
    a mapping will know the chip's stuck cells. `words`: these weights will own an on-chip word.
    """

    network: str
    start: Training | None = None
    teacher: Training | None = None
    noise: Noise | None = None
    fault_aware: bool = False
    words: Places | None = None
    temperature: Positive = 2.0
    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 128
    learning_rate: Positive
    weight_decay: NotNegative = 0.0
    changes: Changes | None = Changes()
    seed: Annotated[int, Field(ge=0)] = 1

    @property
    def needs(self) -> dict[str, Training]:
        """The trainings whose networks this one begins with."""
        named = {"start": self.start, "teacher": self.teacher}
        return {name: training for name, training in named.items() if training is not None}

    @property
    def title(self) -> str:
        """What to call it where one reads: its network, and how it is taught."""
        if self.noise is None:
            return f"{self.network} in floating point"
        kind = "distilled" if self.teacher is not None else "variation-aware"
        known = "".join(
            f", {what} known"
            for what, is_so in (("faults", self.fault_aware), ("words", self.words is not None))
            if is_so
        )
        return f"{self.network} {kind}{known}"


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a training learns from: the networks it needs, by their names in `Training.needs`, and
    the images.
    """

    networks: dict[str, Network]
    data: LabelledImages


def train(training: Training, lesson: Lesson, threads: int | None = 1) -> Network:
    """Train a network. Raises `ConfigError` for an unknown one, `DataError` where it diverges."""
    from rram_hil import learning
    from rram_hil.studies.models import new_network

    known = {name: network.to_torch() for name, network in lesson.networks.items()}
    first = known.get("start")
    model = new_network(training.network, training.seed) if first is None else first
    settings: dict[str, Any] = {
        "epochs": training.epochs,
        "batch": training.batch,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "augmentation": None if training.changes is None else training.changes.draws(),
        "seed": training.seed,
        "threads": threads,
    }
    trained: nn.Module
    if training.noise is None and "teacher" not in known:
        trained = learning.train_teacher(model, lesson.data, **settings)
    else:
        places = training.words
        trained = learning.distil(
            known.get("teacher"),
            model,
            lesson.data,
            None if training.noise is None else training.noise.draws(),
            training.temperature,
            words=None if places is None else places.masks(model, lesson.data.images[:1]),
            fault_aware=training.fault_aware,
            **settings,
        )
    return Network.from_torch(trained)
