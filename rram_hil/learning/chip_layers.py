"""Any torch module with its Linear and Conv2d layers on the array: their forward becomes `Multiply`
operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as Table
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from rram_hil.array import Multiply, Result, drive
from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.inference import (
    Codes,
    Counts,
    Encoding,
    full_scales,
    input_step,
    multiply_images,
    multiply_layer,
)
from rram_hil.networks.mapping import LayerWords, Mapping, Missing
from rram_hil.networks.network import unfold
from rram_hil.types import FloatArray

ArrayLayer = nn.Linear | nn.Conv2d


@contextmanager
def attach(
    module: nn.Module,
    mapping: Mapping,
    encoding: Encoding,
    bench_do: Callable[[Multiply], Result],
    words: Table[str, LayerWords] | None = None,
) -> Iterator[Counts]:
    """While the context lasts, the mapped Linear and Conv2d layers of `module` multiply on the
    array.

    `mapping` is of `tensors_from(module)`, or of some of these: layers that are not mapped stay
    digital. `words` must be on the chip already (`mapping.word_operation`). The module must be in
    evaluation mode; no gradient flows. Gives the counts of what went through the array. Raises
    `ConfigError` for a layer that does not fit and, at the end, for a mapped layer that the module
    never called although it ran (its weight is used in another way, as in `nn.MultiheadAttention`).
    """
    layers = _mapped(module, mapping)
    words = words or {}
    counts = Counts()
    for name, layer in layers.items():
        if "forward" in vars(layer):
            raise ConfigError(
                f"layer {name}: its forward is already replaced; end the other `attach` first"
            )
    for name, layer in layers.items():
        forward = partial(
            _forward, name, layer, mapping, encoding, bench_do, words.get(name), counts
        )
        layer.forward = forward  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        for layer in layers.values():
            del layer.forward
    idle = [name for name in layers if name not in counts.vectors]
    if counts.vectors and idle:
        raise ConfigError(
            f"layer {idle[0]}: mapped, but the module ran without calling it; take it out of the"
            " mapping"
        )


def calibrate_module(
    module: nn.Module,
    mapping: Mapping,
    images: Tensor,
    *,
    map_s: ArrayLike | None = None,
    words: Table[str, LayerWords] | None = None,
    missing: Missing = "target",
    input_bits: int = 8,
    input_percentile: float = 100.0,
    read_v: float = 0.2,
    wl_v: float = 3.0,
    margin: float = 1.25,
) -> Encoding:
    """`inference.calibrate` for any torch module: input steps and ADC full scales from a batch of
    training `images`.

    Runs the module twice in floating point, with the weights that the array holds and hooks on the
    mapped layers.
    """
    layers = _mapped(module, mapping)
    filled, _ = mapping.fill(mapping.target_map_s if map_s is None else map_s, missing)
    held = _held_tensors(mapping, filled, words or {})
    steps: dict[str, float] = {}
    scales: dict[str, tuple[float, ...]] = {}

    def note_step(name: str, layer: ArrayLayer, values: Tensor) -> None:
        step = input_step(values.numpy(), input_bits, input_percentile)
        steps[name] = max(step, steps.get(name, 0.0))

    def note_currents(name: str, layer: ArrayLayer, values: Tensor) -> None:
        codes, _ = Encoding(steps, {}, input_bits, read_v, wl_v).encode(name, values.numpy())
        vectors = _vectors(layer, codes)
        found = full_scales(mapping.layer(name), filled, vectors, input_bits, read_v, margin)
        scales[name] = tuple(np.maximum(found, scales.get(name, found)).tolist())

    for note in (note_step, note_currents):
        hooks = [
            layer.register_forward_pre_hook(
                lambda m, args, n=name, f=note: f(n, m, _input(m, args[0]))
            )
            for name, layer in layers.items()
        ]
        try:
            with torch.no_grad():
                torch.func.functional_call(module, held, (images,))
        finally:
            for hook in hooks:
                hook.remove()
    for name in layers:
        if name not in scales:
            raise ConfigError(
                f"layer {name}: mapped, but the module ran without calling it; take it out of the"
                " mapping"
            )
    return Encoding(steps, scales, input_bits, read_v, wl_v)


def _held_tensors(
    mapping: Mapping, map_s: FloatArray, words: Table[str, LayerWords]
) -> dict[str, Tensor]:
    """The weights that the array and the words hold, and the words' biases, by parameter name."""

    def parameter(layer: str, kind: str) -> str:
        return kind if layer == "weight" else f"{layer}.{kind}"

    weights = mapping.effective_weights(map_s, words=words)
    tensors = {
        parameter(name, "weight"): torch.from_numpy(weight) for name, weight in weights.items()
    }
    biases = {
        parameter(n, "bias"): torch.from_numpy(w.biases)
        for n, w in words.items()
        if w.bias_values.size
    }
    return tensors | biases


def _mapped(module: nn.Module, mapping: Mapping) -> dict[str, ArrayLayer]:
    """The modules that are on the array, by name."""
    if module.training:
        raise ConfigError("the array computes in evaluation mode only: call module.eval() first")
    found = {
        name or "weight": child
        for name, child in module.named_modules()
        if isinstance(child, ArrayLayer)
    }
    layers = {}
    for on_array in mapping.layers:
        layer = found.get(on_array.name)
        if layer is None:
            raise ConfigError(
                f"layer {on_array.name!r} is on the array, but the module's layers are"
                f" {', '.join(found)}"
            )
        if tuple(layer.weight.shape) != on_array.shape:
            raise ConfigError(
                f"layer {on_array.name}: weight {tuple(layer.weight.shape)}, on the array"
                f" {on_array.shape}"
            )
        layers[on_array.name] = layer
    return layers


def _input(layer: ArrayLayer, values: Tensor) -> Tensor:
    """A layer's input as the array takes it: (n, features), or (n, channels, h, w) with its padding
    around it.
    """
    values = values.detach().to("cpu", torch.float32)
    if isinstance(layer, nn.Linear):
        return values.reshape(-1, layer.in_features)
    if values.ndim != 4:
        raise DataError(
            f"a convolution on the array takes (n, channels, h, w), not {tuple(values.shape)}"
        )
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(values, layer._reversed_padding_repeated_twice, mode=mode)


def _vectors(layer: ArrayLayer, codes: Codes) -> Iterator[Codes]:
    """The vectors that a layer's input codes become, a few images at a time; every group's in
    turn.
    """
    if isinstance(layer, nn.Linear):
        yield codes
        return
    size = layer.in_channels // layer.groups
    for start in range(0, len(codes), 16):
        for group in range(layer.groups):
            taken = codes[start : start + 16, group * size : (group + 1) * size]
            rows = unfold(
                taken, _pair(layer.kernel_size), _pair(layer.stride), dilation=_pair(layer.dilation)
            )
            yield rows.reshape(len(rows), -1).T


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return (int(value[0]), int(value[1]))


def _forward(
    name: str,
    layer: ArrayLayer,
    mapping: Mapping,
    encoding: Encoding,
    bench_do: Callable[[Multiply], Result],
    words: LayerWords | None,
    counts: Counts,
    values: Tensor,
) -> Tensor:
    codes, clipped = encoding.encode(name, _input(layer, values).numpy())
    counts.add(name, clipped=clipped)
    word_step = words.step if words is not None and words.values.size else None
    if isinstance(layer, nn.Linear):
        work = multiply_layer(mapping, encoding, name, codes, word_step=word_step, counts=counts)
        sums = drive(work, bench_do).T.reshape(*values.shape[:-1], layer.out_features)
    else:
        work = multiply_images(
            mapping,
            encoding,
            name,
            codes,
            kernel=_pair(layer.kernel_size),
            stride=_pair(layer.stride),
            dilation=_pair(layer.dilation),
            groups=layer.groups,
            word_step=word_step,
            counts=counts,
        )
        sums = drive(work, bench_do)
    result = torch.from_numpy(np.ascontiguousarray(sums)).to(values.device, values.dtype)
    bias = layer.bias
    if words is not None and words.bias_values.size:
        bias = torch.from_numpy(words.biases)
    if bias is not None:
        shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
        result = result + bias.detach().to(result).reshape(shape)
    return result
