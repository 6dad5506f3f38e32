"""Networks in .safetensors files: weights as tensors, the graph as JSON in the metadata.

Tensors are `<weight>.weight` and `<weight>.bias` of what goes to the array, and `digital:<name>` of
what does not. Under "rram_hil.network" the metadata hold {"version": 2, "inputs", "result",
"layers"}; files of version 1 hold the list of layers alone, each taking the one before.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rram_hil.errors import ConfigError, DataError
from rram_hil.networks.layers import LAYERS, Layer
from rram_hil.networks.network import Network, NoLayersError, Result, extra
from rram_hil.validation import StrictModel

METADATA_KEY = "rram_hil.network"
VERSION = 2
_DIGITAL = "digital:"
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that torch.save writes."""


class _Graph(StrictModel):
    """The graph of a network in its file."""

    version: int
    layers: tuple[Layer, ...]
    inputs: int = 1
    result: Any = None


def save(network: Network, path: Path) -> None:
    """Write a network. Raises `DataError` where the file cannot be written."""
    safetensors = extra("safetensors.numpy")
    tensors: dict[str, NDArray[Any]] = {f"{n}.weight": w for n, w in network.weights.items()}
    tensors |= {f"{n}.bias": b for n, b in network.biases.items()}
    tensors |= {f"{_DIGITAL}{n}": t for n, t in network.tensors.items()}
    # The library writes memory as it lies: a transposed matrix would come back as another one.
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    graph = {
        "version": VERSION,
        "inputs": network.inputs,
        "result": network.result,
        "layers": json.loads(LAYERS.dump_json(network.layers, exclude_defaults=True)),
    }
    for layer, described in zip(network.layers, graph["layers"], strict=True):
        described["kind"] = layer.kind
    try:
        # The library's own writing of files lets nobody else read them.
        path.write_bytes(safetensors.save(tensors, metadata={METADATA_KEY: json.dumps(graph)}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from None


def load(path: Path) -> Network:
    """Read a network of any version. Raises `DataError`, `NoLayersError`."""
    tensors, metadata = read(path)
    if METADATA_KEY not in metadata:
        raise NoLayersError(
            f"{path}: no layer list in its metadata; use `tensors_from` for weights without a"
            " topology"
        )
    graph = _graph(path, metadata[METADATA_KEY])
    kinds = {"weight": dict[str, Any](), "bias": dict[str, Any]()}
    digital = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if name.startswith(_DIGITAL):
            digital[name.removeprefix(_DIGITAL)] = tensor
        elif kind in kinds:
            kinds[kind][layer] = tensor
        else:
            raise DataError(f"{path}: unexpected tensor {name!r}")
    return Network(
        graph.layers,
        kinds["weight"],
        kinds["bias"],
        digital,
        graph.inputs,
        _tuples(graph.result),
    )


def _graph(path: Path, text: str) -> _Graph:
    try:
        if text.lstrip().startswith("["):
            return _Graph(version=1, layers=LAYERS.validate_json(text))
        graph = _Graph.model_validate_json(text)
    except ValidationError as error:
        raise NoLayersError(
            f"{path}: its layer list is wrong: {error.errors()[0]['msg']}"
        ) from None
    if graph.version > VERSION:
        raise DataError(
            f"{path}: its graph is of version {graph.version}; this version of rram-hil reads up to"
            f" {VERSION}"
        )
    return graph


def _tuples(result: Result) -> Result:
    """A result as it was before JSON made lists of its tuples."""
    if isinstance(result, list):
        return tuple(_tuples(part) for part in result)
    if isinstance(result, dict):
        return {key: _tuples(part) for key, part in result.items()}
    return result


def weights_in(path: Path, allow_digital: Collection[str]) -> dict[str, NDArray[Any]]:
    """Every tensor of 2 to 4 dimensions called `<layer>.weight` in a file, by layer. Raises
    `ConfigError` for another that could be a weight.
    """
    tensors, _ = read(path)
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if allowed_digital(name, allow_digital) or name.startswith(_DIGITAL):
            continue
        if kind == "weight" and tensor.ndim in (2, 3, 4):
            found[layer] = tensor
        elif sum(size > 1 for size in tensor.shape) > 1:
            raise ConfigError(
                f"{path}: {name} of shape {tensor.shape} is no weight of a known layer; name it in"
                " allow_digital if it stays digital"
            )
    return found


def allowed_digital(name: str, allow_digital: Collection[str]) -> bool:
    """Whether a tensor, or a module that has it, is named in `allow_digital`."""
    return any(name == given or name.startswith(f"{given}.") for given in allow_digital)


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a file; bfloat16 and 8-bit floats become float32. Raises
    `DataError`.
    """
    safetensors = extra("safetensors")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    # A file of safetensors begins with the size of its header, which may look like a pickle.
    if content.startswith(_PICKLES) and content[8:9] != b"{":
        raise DataError(
            f"{path}: a pickle of torch, which can run any code when it is read; write it anew with"
            " safetensors.torch.save_file(torch.load(..., weights_only=True), ...), or"
            " Network.from_torch(module).save(...)"
        )
    try:
        tensors = {
            name: _array(entry["dtype"], entry["shape"], entry["data"])
            for name, entry in safetensors.deserialize(content)
        }
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__") or {}
    except (
        *(OSError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError),
        *(RecursionError, MemoryError, safetensors.SafetensorError),
    ) as error:
        raise DataError(f"{path}: not a safetensors file of numbers: {error}") from None


_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _array(dtype: str, shape: list[int], data: bytes) -> NDArray[Any]:
    if dtype in _NUMPY:
        return np.frombuffer(data, _NUMPY[dtype]).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
        return np.asarray(wide.view(np.float32).reshape(shape))
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return np.asarray(_eight_bit_floats(dtype)[np.frombuffer(data, "u1")].reshape(shape))
    raise ValueError(f"numbers of type {dtype} are not supported")


def _eight_bit_floats(dtype: str) -> NDArray[np.float32]:
    """The value of each 8-bit code (Micikevicius et al., "FP8 formats for deep learning", 2022):
    E4M3 has no infinity, and one NaN; E5M2 is the upper half of a float16.
    """
    codes = np.arange(256)
    if dtype == "F8_E5M2":
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    exponent, fraction = (codes >> 3) & 15, codes & 7
    size = np.where(exponent > 0, (8 + fraction) * 2.0 ** (exponent - 10), fraction * 2.0**-9)
    size[(codes & 127) == 127] = np.nan
    return np.where(codes > 127, -size, size).astype(np.float32)
