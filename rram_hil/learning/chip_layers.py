"""Any torch module on the array: while it is attached, calling it runs its traced network, every
mapped weight multiplied by on the array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as Table
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from rram_hil.array import Multiply, Result, drive
from rram_hil.errors import ConfigError
from rram_hil.networks.inference import Counts, Encoding, calibrate_on, compute
from rram_hil.networks.mapping import LayerWords, Mapping, Missing
from rram_hil.networks.network import Network
from rram_hil.networks.pytorch.tracing import trace

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
    map_s: ArrayLike | None = None,
    words: Table[str, LayerWords] | None = None,
    missing: Missing = "target",
    input_bits: int = 8,
    input_percentile: float = 100.0,
    read_v: float = 0.2,
    wl_v: float = 3.0,
    margin: float = 1.25,
    allow_digital: Collection[str] = (),
) -> Encoding:
    """`inference.calibrate` for any torch module: input steps and ADC full scales from a batch of
    training `images`, or from one batch of each of its inputs.
    """
    inputs = [images] if isinstance(images, Tensor) else list(images)
    network = _network(module, mapping, len(inputs), {}, allow_digital)
    return calibrate_on(
        network, mapping, [_array(x) for x in inputs], map_s=map_s, words=words, missing=missing,
        input_bits=input_bits, input_percentile=input_percentile, read_v=read_v, wl_v=wl_v,
        margin=margin,
    )  # fmt: skip


def _network(
    module: nn.Module,
    mapping: Mapping,
    inputs: int | tuple[str, ...],
    constants: Table[str, Any],
    allow_digital: Collection[str],
) -> Network:
    """The network of a module, of which everything in `mapping` is part."""
    if module.training:
        raise ConfigError("the array computes in evaluation mode only: call module.eval() first")
    network = trace(module, inputs=inputs, constants=constants, allow_digital=allow_digital).network
    _check(module, mapping, network)
    return network


def _check(module: nn.Module, mapping: Mapping, network: Network) -> None:
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
    for name, child in module.named_modules():
        if child.training and isinstance(child, _MODES):
            raise ConfigError(
                f"module {name} is in training mode, and the array computes in evaluation mode"
                " only: call module.eval() first"
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
        self._own = vars(module).get("forward")
        if isinstance(getattr(self._own, "__self__", None), _Attached):
            raise ConfigError(
                f"{type(module).__name__}: its forward is already replaced; end the other `attach`"
                " first"
            )
        self._signature = inspect.signature(module.forward)
        self._networks: dict[Any, Network] = {}
        self._guards: list[Any] = []
        _missing_names(module, mapping)
        if all(
            p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            for p in self._signature.parameters.values()
        ):
            needed = [n for n, p in self._signature.parameters.items() if p.default is p.empty]
            self._traced(tuple(needed), {})

    def begin(self) -> None:
        """Take the module's calls."""
        self._module.forward = self._answer
        self._guards = [
            child.register_forward_pre_hook(_refuse_part)
            for child in self._module.modules()
            if child is not self._module
        ]

    def end(self) -> None:
        """Give the module its own forward pass back."""
        for guard in self._guards:
            guard.remove()
        del self._module.forward
        if self._own is not None:
            self._module.forward = self._own

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        variadic = [p for p in self._signature.parameters.values() if p.kind == p.VAR_POSITIONAL]
        if variadic:
            tensors, constants = list(args), dict(kwargs)
            names: int | tuple[str, ...] = len(args)
        else:
            given = dict(bound.arguments)
            for parameter in self._signature.parameters.values():
                if parameter.kind == parameter.VAR_KEYWORD:
                    given.update(given.pop(parameter.name, {}))
            taken = {name: value for name, value in given.items() if isinstance(value, Tensor)}
            constants = {name: value for name, value in given.items() if name not in taken}
            tensors, names = list(taken.values()), tuple(taken)
        network = self._traced(names, constants)
        inputs = [_array(x) for x in tensors]
        work = compute(network, self._mapping, self._encoding, inputs, self._words, self.counts)
        return _tensors(drive(work, self._do), *_home(tensors, self._module))

    def _traced(self, inputs: Any, constants: dict[str, Any]) -> Network:
        key = (inputs, tuple(sorted((n, repr(v)) for n, v in constants.items())))
        if key not in self._networks:
            attached = bool(self._guards)
            if attached:  # what is traced is the module itself
                self.end()
            try:
                self._networks[key] = _network(
                    self._module, self._mapping, inputs, constants, self._allow
                )
            finally:
                if attached:
                    self.begin()
        return self._networks[key]


def _missing_names(module: nn.Module, mapping: Mapping) -> None:
    """Refuse a layer of which the module has no parameter at all, before tracing fails for it."""
    owned = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for layer in mapping.layers:
        stem = layer.name.removesuffix("'").removesuffix(".T")
        head = stem.rpartition(".")[0] if ".ih_l" in stem or ".hh_l" in stem else stem
        if head and head != "module" and not any(name.startswith(head) for name in owned):
            raise ConfigError(
                f"layer {layer.name!r} is on the array, but the module's parameters are"
                f" {', '.join(owned)}"
            )


def _refuse_part(part: nn.Module, args: Any) -> NoReturn:
    raise ConfigError(
        f"{type(part).__name__}: only the module that is attached can be called, as a whole; its"
        " parts would answer without the array"
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    values = tensor.detach().cpu()
    return np.asarray(values.numpy() if values.dtype == torch.bool else values.float().numpy())


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
        result = torch.from_numpy(np.ascontiguousarray(made))
        return result.to(device, dtype if result.is_floating_point() else result.dtype)
    if isinstance(made, dict):
        return {key: _tensors(part, device, dtype) for key, part in made.items()}
    if isinstance(made, tuple):
        return tuple(_tensors(part, device, dtype) for part in made)
    return made
