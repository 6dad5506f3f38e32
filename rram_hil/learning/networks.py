"""The networks of the examples, and running any with other weights than its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rram_hil.errors import ConfigError, DataError, first_line
from rram_hil.networks.layers import BatchNorm, Weighted
from rram_hil.networks.network import Network
from rram_hil.networks.pytorch.operations import product, walk
from rram_hil.networks.pytorch.tracing import trace, unwrapped

M = TypeVar("M", bound=nn.Module)

Multiply = Callable[[int, Weighted, Tensor], Tensor]
"""multiply(index of the mapped layer, what it does, its input) -> its output, the bias included."""


def lenet5(seed: int = 0, *, width: int = 1, batch_norm: bool = False) -> nn.Sequential:
    """LeNet-5 for 1x28x28 images: 6 and 16 kernels of 5x5, then 120, 84 and 10 units; 61,706
    parameters.

    LeCun et al., Proc. IEEE 1998, with ReLU and maximum pooling in place of the sigmoid and the
    average. `width` multiplies kernels and units, for a teacher. With `batch_norm` a normalisation
    follows each layer but the last; `folded` makes it part of the weights after training.
    """

    def layer(of: nn.Linear | nn.Conv2d) -> list[nn.Module]:
        if not batch_norm:
            return [of]
        if isinstance(of, nn.Conv2d):
            return [of, nn.BatchNorm2d(of.out_channels)]
        return [of, nn.BatchNorm1d(of.out_features)]

    # Pooling first gives the same numbers as ReLU first, and a quarter of the work.
    return _seeded(
        seed,
        lambda: nn.Sequential(
            *layer(nn.Conv2d(1, 6 * width, 5, padding=2)), nn.MaxPool2d(2), nn.ReLU(),
            *layer(nn.Conv2d(6 * width, 16 * width, 5)), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(),
            *layer(nn.Linear(400 * width, 120 * width)), nn.ReLU(),
            *layer(nn.Linear(120 * width, 84 * width)), nn.ReLU(),
            nn.Linear(84 * width, 10),
        ),
    )  # fmt: skip


VGG16 = (2, 2, 3, 3, 3)
"""Convolutions of the blocks of VGG-16."""


def vgg(
    seed: int = 0,
    *,
    width: int = 64,
    blocks: Sequence[int] = VGG16,
    units: Sequence[int] = (512, 512),
    classes: int = 10,
) -> nn.Sequential:
    """A VGG with batch norm for 3x32x32 images: by default VGG-16 as it is used for CIFAR-10, 15.2
    million weights.

    Simonyan and Zisserman, ICLR 2015. Block k is `blocks[k]` convolutions of 3x3 with `width` times
    1, 2, 4, 8, 8 kernels, and halves the image; then come layers of `units` and the classes. Each
    layer but the last has a batch norm, of which `folded` makes weights. Raises `ConfigError` where
    there are not 1 to 5 blocks of 1 convolution or more.
    """
    if not 1 <= len(blocks) <= 5 or min(blocks) < 1:
        raise ConfigError(
            f"vgg: blocks {tuple(blocks)} must be 1 to 5 numbers of convolutions, each 1 or more"
        )
    kernels = [width * min(2**k, 8) for k in range(len(blocks))]
    side = 32 // 2 ** len(blocks)

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        before = 3
        for count, after in zip(blocks, kernels, strict=True):
            for _ in range(count):
                convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            # Pooling first gives the same numbers as ReLU first.
            layers.insert(-1, nn.MaxPool2d(2))
        layers.append(nn.Flatten())
        before *= side * side
        for after in units:
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
            before = after
        return nn.Sequential(*layers, nn.Linear(before, classes))

    return _seeded(seed, build)


def folded(model: nn.Module) -> nn.Module:
    """The same network in evaluation mode with its batch norms in the weights and biases before
    them.
    """
    return Network.from_torch(model).to_torch()


def channels_last(images: Tensor) -> Tensor:
    """`images` (n, channels, height, width) with the channels innermost in memory, the layout in
    which torch's convolutions and pooling are fastest on a CPU; anything else as it is.
    """
    if images.ndim != 4:
        return images
    if images.shape[1] > 1:
        return images.contiguous(memory_format=torch.channels_last)
    # One channel lies the same way in both layouts; torch tells them apart by the strides alone.
    images = images.contiguous()
    count, _, height, width = images.shape
    return images.as_strided((count, 1, height, width), (height * width, 1, width, 1))


def digits_net(seed: int = 0) -> nn.Sequential:
    """A small network for 1x8x8 digits, so few weights that a serial link programs them in
    seconds.
    """
    return _seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(12, 24, 3), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 10),
        ),
    )  # fmt: skip


def _seeded(seed: int, build: Callable[[], nn.Sequential]) -> nn.Sequential:
    # torch initialises layers from its global generator only: borrow it and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a tensor lives in a module: read anew each time, since `to` and `half` replace it."""

    owner: nn.Module
    attribute: str
    transposed: bool

    def __call__(self) -> Tensor:
        tensor: Tensor = getattr(self.owner, self.attribute)
        return tensor.t() if self.transposed else tensor


@dataclass(frozen=True, eq=False)
class MappedWeight:
    """A mapped layer that is no module of its own: the weight (a view, where it is stored
    transposed) and bias of a part of one, such as a recurrent or an attention layer.
    """

    name: str
    _weight: Callable[[], Tensor]
    _bias: Callable[[], Tensor] | None

    @property
    def weight(self) -> Tensor:
        """The weight, of the shape that goes to the array."""
        return self._weight()

    @property
    def bias(self) -> Tensor | None:
        """The bias, where there is one."""
        return None if self._bias is None else self._bias()


MappedLayer = nn.Linear | nn.Conv1d | nn.Conv2d | MappedWeight


class TracedModule(Generic[M]):
    """A module traced once, to be run with other weights than its own as often as needed.

    Every function here that takes a module takes one of these, too; with it, `allow_digital` names
    the weights that may stay off the array. With `training` it runs as in training: dropout drops,
    and the batch norms whose modules are in training mode take the statistics of their batches and
    keep the running ones. Raises `ConfigError` naming what cannot be mapped.
    """

    def __init__(
        self, module: M, *, training: bool = False, allow_digital: Collection[str] = ()
    ) -> None:
        check_module(module)
        self.module, self.allow_digital = module, tuple(allow_digital)
        self._training = training
        try:
            traced = trace(module, training=training, allow_digital=allow_digital)
        except DataError:
            check_finite(module)  # says it by the name of the parameter
            raise
        self.network = traced.network
        self._sources = traced.sources
        self.names = list(self.network.matrices)
        if not self.names:
            raise ConfigError(f"{type(module).__name__}: no weight in it that an array could hold")
        self._index = {name: k for k, name in enumerate(self.names)}
        inner = unwrapped(module)
        self._owners = dict(inner.named_modules(remove_duplicate=False))
        like = next((p for p in inner.parameters() if p.is_floating_point()), torch.zeros(0))
        self.device, self.dtype = like.device, like.dtype
        self._weights = [self._place(f"{n}.weight", self.network.weights[n]) for n in self.names]
        biases = self.network.biases
        self._biases = [
            self._place(f"{n}.bias", biases[n]) if n in biases else None for n in self.names
        ]
        self._tensors = {n: self._place(n, t) for n, t in self.network.tensors.items()}
        self._norms: dict[str, nn.Module] = {}
        self._find_norms()

    def _place(self, name: str, values: ArrayLike) -> Callable[[], Tensor]:
        source = self._sources.get(name)
        if source is None:
            fixed = torch.from_numpy(np.array(values))
            fixed = fixed.to(self.device, self.dtype if fixed.is_floating_point() else None)
            return lambda: fixed
        path, _, attribute = source.parameter.rpartition(".")
        return _Place(self._owners[path], attribute, source.transposed)

    def _find_norms(self) -> None:
        """Find the batch norms: each counts the batches that it sees, and may be in evaluation mode
        while the rest learns.
        """
        for layer in self.network.layers:
            mean = isinstance(layer, BatchNorm) and self._tensors[layer.tensor("running_mean")]
            if isinstance(layer, BatchNorm) and isinstance(mean, _Place):
                self._norms[layer.name] = mean.owner
                count = "num_batches_tracked"
                if count in mean.owner._buffers:
                    self._tensors[layer.tensor(count)] = _Place(mean.owner, count, False)

    @property
    def layers(self) -> list[MappedLayer]:
        """The layers whose weights go to the array, in order; every layer index in this package
        counts these.
        """
        return [
            self._own(weight, bias) or MappedWeight(name, weight, bias)
            for name, weight, bias in zip(self.names, self._weights, self._biases, strict=True)
        ]

    @staticmethod
    def _own(
        weight: Callable[[], Tensor], bias: Callable[[], Tensor] | None
    ) -> nn.Linear | nn.Conv1d | nn.Conv2d | None:
        """The module that has just this weight and bias."""
        if not isinstance(weight, _Place) or weight.transposed or weight.attribute != "weight":
            return None
        owner = weight.owner
        if not isinstance(owner, nn.Linear | nn.Conv1d | nn.Conv2d):
            return None
        return owner if owner.bias is (None if bias is None else bias()) else None

    @property
    def weights(self) -> list[Tensor]:
        """The weights of the mapped layers as they are now."""
        return [weight() for weight in self._weights]

    @property
    def biases(self) -> list[Tensor | None]:
        """Their biases as they are now."""
        return [None if bias is None else bias() for bias in self._biases]

    @property
    def places(self) -> list[tuple[str, bool] | None]:
        """Where in the module each mapped weight lives: its parameter, and whether transposed; none
        for one that is computed.
        """
        found = [self._sources.get(f"{name}.weight") for name in self.names]
        return [None if s is None else (s.parameter, s.transposed) for s in found]

    def refuse_computed(self) -> None:
        """Raise `ConfigError` where a mapped weight or bias cannot be written to."""
        for name, source in self._sources.items():
            owner = name.removesuffix(".weight").removesuffix(".bias")
            if source is None and owner in self._index:
                raise ConfigError(
                    f"{type(self.module).__name__}: {name} is computed from other parameters and"
                    " cannot be trained on the array; make it plain first"
                    " (torch.nn.utils.parametrize.remove_parametrizations)"
                )

    def here(self, images: Tensor) -> Tensor:
        """`images` on the module's device, in its type."""
        return images.to(self.device, self.dtype if images.is_floating_point() else None)

    def run(self, images: Tensor, multiply: Multiply, *, learns: bool = True) -> Tensor:
        """What the module gives for `images`, with `multiply` in place of its products. Gradients
        reach what is digital in it only if it `learns`.
        """
        tensors = {
            name: tensor() if learns else tensor().detach()
            for name, tensor in self._tensors.items()
        }
        given: Tensor = walk(
            self.network,
            tensors,
            [self.here(images)],
            lambda layer, x: multiply(self._index[layer.weight_name], layer, x),
            training=self._training,
            frozen={name for name, norm in self._norms.items() if not norm.training},
        )
        return given

    def forward(
        self,
        images: Tensor,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None] | None = None,
        input_bits: int | None = None,
    ) -> Tensor:
        """What `forward` gives."""
        given = self.biases if biases is None else biases
        if not len(self.names) == len(weights) == len(given):
            raise DataError(
                f"{type(self.module).__name__}: {len(self.names)} mapped layers, but"
                f" {len(weights)} weights and {len(given)} biases"
            )
        moved = [self.here(weight) for weight in weights]
        shifts = [None if bias is None else self.here(bias) for bias in given]

        def multiply(index: int, layer: Weighted, activity: Tensor) -> Tensor:
            bias = shifts[index] if layer.biased else None
            return product(layer, quantise_input(activity, input_bits), moved[index], bias)

        return self.run(images, multiply)


def traced(model: M | TracedModule[M]) -> TracedModule[M]:
    """`model`, traced if it is not yet."""
    return model if isinstance(model, TracedModule) else TracedModule(model)


def copied(model: M | TracedModule[M], *, training: bool = False) -> TracedModule[M]:
    """A copy of a module, traced as it is to be run."""
    if isinstance(model, TracedModule):
        module, digital = model.module, model.allow_digital
    else:
        module, digital = model, ()
    return TracedModule(duplicate(module), training=training, allow_digital=digital)


def duplicate(module: M) -> M:
    """A copy of a module. Raises `ConfigError` for what is no module, or cannot be copied."""
    check_module(module)
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{type(module).__name__}: cannot be copied: {first_line(str(error))}"
        ) from error


def check_module(module: object) -> None:
    """Raise `ConfigError` for what is no module that could be trained."""
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{kind}: not a torch module")
    if isinstance(module, torch.jit.ScriptModule):
        raise ConfigError(f"{kind}: scripted; give the module that it was made from")
    for name, parameter in module.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ConfigError(f"{kind}: {name} has no shape yet; run the module once first")


def check_finite(module: nn.Module) -> None:
    """Raise `DataError` naming a parameter or a running statistic that is not finite."""
    statistics = (
        (name, buffer)
        for name, buffer in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    )
    for name, tensor in (*module.named_parameters(), *statistics):
        if not torch.isfinite(tensor).all():
            raise DataError(
                f"{type(module).__name__}: {name} is not finite; {int((~tensor.isfinite()).sum())}"
                f" of its {tensor.numel()} values are NaN or inf"
            )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """While the context lasts, `module` is in evaluation mode; afterwards each part of it is in the
    mode that it was in.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def mapped_layers(model: M | TracedModule[M]) -> list[MappedLayer]:
    """The layers whose weights go to the array, in order of their first use; every layer index in
    this package counts these. Each has a `weight` and a `bias` (or none).
    """
    return traced(model).layers


def forward(
    model: M | TracedModule[M],
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    input_bits: int | None = None,
) -> Tensor:
    """What the model, in evaluation mode, gives with other `weights` (one a mapped layer) and,
    where given, other `biases`.

    With `input_bits`, each layer's input is rounded to that many signed bits first, as the array's
    converters do. Give a `TracedModule` where this is called often.
    """
    return traced(model).forward(images, weights, biases, input_bits)


def quantise_input(activity: Tensor, bits: int | None) -> Tensor:
    """`activity` rounded to signed `bits` of each image's largest value; straight-through
    gradient.
    """
    if bits is None:
        return activity
    steps = 2 ** (bits - 1) - 1
    with torch.no_grad():
        axes = tuple(range(1, activity.ndim))
        peak = torch.maximum(
            activity.amax(dim=axes, keepdim=True), -activity.amin(dim=axes, keepdim=True)
        )
        step = peak.clamp_min_(1e-12).div_(steps)
        rounded = (activity / step).round_().mul_(step)
    return straight_through(activity, rounded)


def straight_through(value: Tensor, given: Tensor) -> Tensor:
    """The value of `given` with the gradient of `value`."""
    if not value.requires_grad:
        return given
    result: Tensor = _StraightThrough.apply(value, given)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, value: Tensor, given: Tensor) -> Tensor:
        return given.view_as(given)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
