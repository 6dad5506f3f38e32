"""Any torch module on the array: while it is attached, calling it runs its traced network, every
mapped weight multiplied by on the array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as Table
from contextlib import contextmanager
from typing import Any, NoReturn, Unpack

import numpy as np
import torch
from torch import Tensor, fx, nn

from rram_hil.array import Multiply, Result, drive
from rram_hil.errors import ConfigError
from rram_hil.networks.inference import CalibrationOptions, Counts, Encoding, calibrate_on, compute
from rram_hil.networks.mapping import LayerWords, Mapping
from rram_hil.networks.network import Float32, Network
from rram_hil.networks.pytorch.recording import Call, Slot
from rram_hil.networks.pytorch.tracing import trace
from rram_hil.networks.pytorch.verification import array_of, verify

_MODES = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RNNBase,
    nn.MultiheadAttention,
)
"""Modules that compute something else in training mode."""


@contextmanager
def attach(
    module: nn.Module,
    mapping: Mapping,
    encoding: Encoding,
    bench_do: Callable[[Multiply], Result],
    words: Table[str, LayerWords] | None = None,
    *,
    allow_digital: Collection[str] = (),
) -> Iterator[Counts]:
    """While the context lasts, calling `module` multiplies by the mapped weights on the array.

    `mapping` is of `tensors_from(module)`, or of some of these: weights that are not mapped are
    multiplied by digitally, and `Counts.digital` names them. `words` must be on the chip already
    (`mapping.word_operation`). The module must be in evaluation mode; no gradient flows. Only the
    module as a whole can be called: its parts would answer without the array, and are refused.
    Gives the counts of what went through the array. Raises `ConfigError` for a module that cannot
    be traced or does not fit the mapping.
    """
    attached = _Attached(module, mapping, encoding, bench_do, words or {}, allow_digital)
    attached.begin()
    try:
        yield attached.counts
    finally:
        attached.end()


def calibrate_module(
    module: nn.Module,
    mapping: Mapping,
    images: Tensor | Sequence[Tensor],
    *,
    allow_digital: Collection[str] = (),
    **options: Unpack[CalibrationOptions],
) -> Encoding:
    """`inference.calibrate` for any torch module: input steps and ADC full scales from a batch of
    training `images`, or from one batch of each of its inputs.
    """
    inputs = (images,) if isinstance(images, Tensor) else tuple(images)
    call, tensors = Call.of(inputs, {})
    network = _network(module, mapping, call, allow_digital)
    verify(module, network, call, tensors)
    return calibrate_on(network, mapping, [array_of(x) for x in tensors], **options)


def _network(
    module: nn.Module, mapping: Mapping, call: Call, allow_digital: Collection[str]
) -> Network:
    """The network of a module in a call, of which everything in `mapping` is part."""
    _check_mode(module)
    network = trace(module, inputs=call, allow_digital=allow_digital).network
    _check(mapping, network)
    return network


def _check_mode(module: nn.Module) -> None:
    if module.training:
        raise ConfigError("the array computes in evaluation mode only: call module.eval() first")
    for name, child in module.named_modules():
        if child.training and isinstance(child, _MODES):
            raise ConfigError(
                f"module {name} is in training mode, and the array computes in evaluation mode"
                " only: call module.eval() first"
            )


def _check(mapping: Mapping, network: Network) -> None:
    shapes = network.matrices
    for layer in mapping.layers:
        if layer.name not in shapes:
            raise ConfigError(
                f"layer {layer.name!r} is on the array, but the weights that the module multiplies"
                f" by are {', '.join(shapes)}"
            )
        if shapes[layer.name] != layer.shape:
            raise ConfigError(
                f"layer {layer.name}: weight {shapes[layer.name]}, on the array {layer.shape}"
            )


class _Attached:
    """A module on the array."""

    def __init__(
        self,
        module: nn.Module,
        mapping: Mapping,
        encoding: Encoding,
        bench_do: Callable[[Multiply], Result],
        words: Table[str, LayerWords],
        allow_digital: Collection[str],
    ) -> None:
        self.counts = Counts()
        self._module, self._mapping, self._encoding = module, mapping, encoding
        self._do, self._words, self._allow = bench_do, words, allow_digital
        if _is_attached(module):
            raise ConfigError(
                f"{type(module).__name__}: its forward is already replaced; end the other `attach`"
                " first"
            )
        self._replaced: list[tuple[nn.Module, Any, Any]] = []
        self._known: Network | None = None
        self._on_array: dict[str, Float32] = {}
        parameters = inspect.signature(module.forward).parameters.values()
        needed = [p for p in parameters if p.default is p.empty]
        if all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in needed):
            slots = {p.name: Slot(number) for number, p in enumerate(needed)}
            try:
                self._traced(Call(kwargs=slots, count=len(slots)))
            except ConfigError:
                _check_names(module, mapping)
                raise

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise ConfigError("a module on the array cannot be copied; copy it before or afterwards")

    def begin(self) -> None:
        """Take the module's calls, and those of its parts."""
        self._check_hooks()
        for child in self._module.modules():
            ours = self._answer if child is self._module else _refusal(child)
            self._replaced.append((child, vars(child).get("forward"), ours))
            child.forward = ours

    def end(self) -> None:
        """Give all modules their own forward passes back."""
        for child, own, ours in self._replaced:
            if vars(child).get("forward") == ours:  # or it was given another one meanwhile
                del child.forward
                if own is not None:
                    child.forward = own
        self._replaced.clear()

    def _check_hooks(self) -> None:
        if self._module._forward_hooks or self._module._forward_pre_hooks:
            raise ConfigError(
                f"{type(self._module).__name__}: it has hooks of its own, which would run twice;"
                " attach an nn.Sequential around it"
            )

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        call, tensors = Call.of(args, kwargs)
        if any(isinstance(x, fx.Proxy) for x in tensors):
            raise ConfigError(
                f"{type(self._module).__name__}: it is on the array; end `attach` before anything"
                " else is made of it"
            )
        self._check_hooks()
        network = self._traced(call, tensors)
        inputs = [array_of(x) for x in tensors]
        work = compute(network, self._mapping, self._encoding, inputs, self._words, self.counts)
        return _tensors(drive(work, self._do), *_home(tensors, self._module))

    def _traced(self, call: Call, inputs: Sequence[Tensor] | None = None) -> Network:
        """The network as it is now: the module may have changed since the last call."""
        is_attached = bool(self._replaced)
        if is_attached:  # what is traced is the module itself
            self.end()
        try:
            network = _network(self._module, self._mapping, call, self._allow)
            if inputs is not None and not _are_same(network, self._known):
                verify(self._module, network, call, inputs)
                if all(x.numel() for x in inputs):  # nothing says nothing
                    self._known = network
        finally:
            if is_attached:
                self.begin()
        self._check_weights(network)
        return network

    def _check_weights(self, network: Network) -> None:
        """What is on the array would not change with the module."""
        for name in self._mapping.names:
            weight = network.weights[name]
            if not np.array_equal(self._on_array.setdefault(name, weight), weight):
                raise ConfigError(
                    f"layer {name}: its weight has changed since the module was attached, but the"
                    " array holds what it was; map and program it again"
                )


def _is_attached(module: nn.Module) -> bool:
    return isinstance(getattr(vars(module).get("forward"), "__self__", None), _Attached)


def _check_names(module: nn.Module, mapping: Mapping) -> None:
    """Name a layer of which the module has no parameter at all, which says more than that it cannot
    be traced.
    """
    owned = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for layer in mapping.layers:
        stem = layer.name.removesuffix("'").removesuffix(".T")
        head = stem.rpartition(".")[0] if ".ih_l" in stem or ".hh_l" in stem else stem
        if head and head != "module" and not any(name.startswith(head) for name in owned):
            raise ConfigError(
                f"layer {layer.name!r} is on the array, but the module's parameters are"
                f" {', '.join(owned)}"
            )


def _are_same(network: Network, known: Network | None) -> bool:
    if known is None or (network.layers, network.result) != (known.layers, known.result):
        return False
    pairs = (
        (network.weights, known.weights),
        (network.biases, known.biases),
        (network.tensors, known.tensors),
    )
    return all(
        one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
        for one, other in pairs
    )


def _refusal(part: nn.Module) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise ConfigError(
            f"{type(part).__name__}: only the module that is attached can be called, as a whole;"
            " its parts would answer without the array"
        )

    return refuse


def _home(tensors: Sequence[Tensor], module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where and in which type results are wanted: as the inputs or, of whole numbers, the
    parameters.
    """
    for tensor in (*tensors, *module.parameters()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return tensors[0].device, torch.float32


def _tensors(made: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(made, np.ndarray):
        result = torch.from_numpy(np.ascontiguousarray(made)).reshape(made.shape)
        return result.to(device, dtype if result.is_floating_point() else result.dtype)
    if isinstance(made, dict):
        return {key: _tensors(part, device, dtype) for key, part in made.items()}
    if isinstance(made, tuple | list):
        return type(made)(_tensors(part, device, dtype) for part in made)
    return made
