"""Training networks for inaccurate devices, and repairing them on a programmed array (needs the
extra `[torch]`).

The method is that of "Accurate Inference With Inaccurate RRAM Devices" (Charan et al., IEEE JXCDC
2020): a teacher is trained in floating point, a student is distilled from it through the faults and
the variation of the devices, the student is programmed once, and a small random fraction of its
weights, which also own a word of on-chip memory, is then trained on the array as it really is.

Nothing here reaches an instrument. Importing `rram_hil` itself does not import torch; importing
this package does.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  (asked for here so that its absence is one clear line)
except ImportError as _missing:
    raise ImportError(
        "rram_hil.learning needs PyTorch: pip install 'rram-hil[torch]'"
    ) from _missing

from rram_hil.learning.adapt import ArrayMultiply, Words, apply_words, train_words
from rram_hil.learning.data import LabelledImages, digits, mnist
from rram_hil.learning.image_files import read_images
from rram_hil.learning.networks import (
    TracedModule,
    digits_net,
    forward,
    lenet5,
    mapped_layers,
    vgg,
)
from rram_hil.learning.sensitivity import weight_sensitivities
from rram_hil.learning.torch_device import (
    DeviceNoise,
    KnownFaults,
    draw_chip,
    draw_faults,
    weight_scale,
)
from rram_hil.learning.train import Augmentation, accuracy, distil, train_teacher
from rram_hil.learning.word_choice import (
    choose_words,
    important_words,
    low_rank_adapters,
    small_layers_first,
)

__all__ = [
    "ArrayMultiply",
    "Augmentation",
    "DeviceNoise",
    "KnownFaults",
    "LabelledImages",
    "TracedModule",
    "Words",
    "accuracy",
    "apply_words",
    "choose_words",
    "digits",
    "digits_net",
    "distil",
    "draw_chip",
    "draw_faults",
    "forward",
    "important_words",
    "lenet5",
    "low_rank_adapters",
    "mapped_layers",
    "mnist",
    "read_images",
    "small_layers_first",
    "train_teacher",
    "train_words",
    "vgg",
    "weight_scale",
    "weight_sensitivities",
]
