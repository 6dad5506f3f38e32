"""Operations and results as bytes: a JSON header beside raw columns, exact both ways, no pickle.

Layout of an encoded record: length of the header (4 bytes, little-endian), the header (JSON, UTF-8:
kind, meta and one line per column), then the columns one after the other. A column is stored in the
narrowest integer type that holds it, or as one element where all are equal (short ones as they
are); decoding gives back the dtype and shape that went in.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rram_hil.array import (
    Apply,
    ApplyResult,
    Block,
    Cells,
    CodedRead,
    CodedReadResult,
    Geometry,
    Multiply,
    MultiplyResult,
    Operation,
    Program,
    ProgramResult,
    PulseTrain,
    Ramp,
    Result,
    Scheme,
    Span,
    Step,
    Stop,
    Wait,
    WaitResult,
    WordsResult,
    WriteWords,
)
from rram_hil.errors import BenchError, DataError
from rram_hil.hardware.driver import Identity
from rram_hil.storage.fitting_types import field_types, fits

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
AnyArray: TypeAlias = NDArray[Any]

_LENGTH = struct.Struct("<I")
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False)
_NARROW = tuple(np.dtype(code) for code in ("<u1", "<i1", "<u2", "<i2", "<u4", "<i4"))
_SUMMARISED = ("inputs", "codes", "word_sums")
_MOST_BYTES = 1 << 33
"""Of one array read back: an array of one repeated element is as short in a record as one likes."""
_MISFITS = (
    BenchError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""What records whose checksum is right and whose content is not may lead to."""
_VALUES: tuple[type[Any], ...] = (
    *(Apply, Program, Multiply, CodedRead, WriteWords, Wait),
    *(ApplyResult, ProgramResult, MultiplyResult, CodedReadResult, WordsResult, WaitResult),
    *(Cells, Block, Step, Stop, Ramp, PulseTrain, Span, Geometry, Identity),
)


def _little(array: AnyArray, name: str) -> AnyArray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DataError(
            f"array {name!r}: only booleans, integers and floats of at most 8 bytes are kept, not"
            f" {array.dtype}"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"))


def _packed(array: AnyArray) -> AnyArray:
    """The elements to store: one where all are equal to the bit, else all in the narrowest type,
    flat.
    """
    flat = array.reshape(-1)
    if flat.nbytes <= 64:
        return flat
    bits = flat.view(f"<u{flat.dtype.itemsize}")
    if bool((bits == bits[0]).all()):
        return flat[:1]
    if flat.dtype.kind in "iu":
        low, high = int(flat.min()), int(flat.max())
        for narrow in _NARROW:
            info = np.iinfo(narrow)
            if narrow.itemsize < flat.dtype.itemsize and info.min <= low and high <= info.max:
                return flat.astype(narrow)
    return flat


def _finite(value: Json) -> Json:
    """The same JSON with non-finite floats as {"$float": text}: JSON has no NaN. Refuses that key
    elsewhere.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(float(value))}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, dict):
        if "$float" in value:
            raise DataError("the key '$float' is reserved in records")
        return {k: _finite(v) for k, v in value.items()}
    return value


def _non_finite(value: dict[str, Any]) -> Any:
    return float(value["$float"]) if "$float" in value else value


def _text(head: dict[str, Json]) -> bytes:
    try:
        try:
            text = _JSON.encode(head).encode("utf-8")
        except (
            ValueError
        ):  # a NaN or an infinity, which is rare: only then is the whole tree walked
            return _JSON.encode(_finite(head)).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DataError(f"record {head['kind']!r}: its meta is not JSON: {error}") from None
    if b'"$float"' in text:
        _finite(head)
    return text


def encode(kind: str, meta: dict[str, Json], arrays: Mapping[str, AnyArray]) -> bytes:
    """One record as bytes. Raises `DataError` for arrays that are not boolean, integer or float."""
    columns: list[Json] = []
    blobs: list[bytes] = []
    for name, given in arrays.items():
        array = _little(given, name)
        stored = _packed(array)
        columns.append([name, array.dtype.str, [*array.shape], stored.dtype.str, int(stored.size)])
        blobs.append(stored.tobytes())
    text = _text({"kind": kind, "meta": meta, "arrays": columns})
    return b"".join([_LENGTH.pack(len(text)), text, *blobs])


@dataclass(frozen=True, eq=False)
class Record:
    """What an encoded record holds: its kind, its JSON meta and its arrays by name. Equal where the
    bytes are.
    """

    kind: str
    meta: dict[str, Json]
    arrays: dict[str, AnyArray]

    def to_bytes(self) -> bytes:
        """The record encoded."""
        return encode(self.kind, self.meta, self.arrays)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Record:
        """The record that `to_bytes` encoded. Raises `DataError` for anything else."""
        return decode(data)

    @property
    def summary(self) -> bool:
        """Whether arrays were replaced by their shape and CRC32."""
        return any(isinstance(v, dict) and "$digest" in v for v in self.meta.values())

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of array `name`, kept or summarised; None where it was absent."""
        value: Any = self.meta.get(name)
        if isinstance(value, dict) and "$digest" in value:
            return tuple(value["$digest"][1])
        return self.arrays[name].shape if name in self.arrays else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.to_bytes() == other.to_bytes()


def decode(data: bytes | memoryview) -> Record:
    """The record that `encode` made into `data`. Raises `DataError` for anything else."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        text = bytes(data[4 : 4 + length])
        # A hook for each object costs more than all the rest, and hardly ever is one needed.
        hook = _non_finite if b'"$float"' in text else None
        head = json.loads(text, object_hook=hook)
        arrays: dict[str, AnyArray] = {}
        at = 4 + length
        for name, dtype, shape, stored, count in head["arrays"]:
            column = (
                np.frombuffer(data, dtype=stored, count=count, offset=at)
                if count
                else np.empty(0, stored)
            )
            at += column.nbytes
            whole = count == math.prod(shape)
            if math.prod(shape) * np.dtype(dtype).itemsize > _MOST_BYTES:
                raise ValueError(f"array {name!r} of shape {shape} is too large")
            arrays[name] = (
                column.astype(dtype).reshape(shape)
                if whole
                else np.full(shape, column[0].astype(dtype), dtype)
            )
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes more than its columns need")
        kind, meta = head["kind"], head["meta"]
        if not isinstance(kind, str) or not isinstance(meta, dict):
            raise ValueError("its kind is no text, or its meta no object")
        return Record(kind, meta, arrays)
    except (struct.error, *_MISFITS) as error:
        raise DataError(f"damaged record: {error!s:.200}") from None


def flatten(value: Any, path: str, arrays: dict[str, AnyArray]) -> Json:
    """A value of the package as JSON; its arrays go into `arrays` under their attribute path
    ("cells.row").

    Takes None, booleans, numbers, strings, tuples, mappings with string keys, arrays, records and
    the package's dataclasses.
    """
    if isinstance(value, Scheme):
        return {"$": "Scheme", "value": value.value}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        scalar: Json = value.item()
        return scalar
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"$array": path}
    if isinstance(value, list | tuple):
        return [flatten(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            "$": "map",
            "items": [[str(k), flatten(v, f"{path}.{k}", arrays)] for k, v in value.items()],
        }
    if isinstance(value, Record):
        arrays.update({f"{path}/{name}": array for name, array in value.arrays.items()})
        return {"$": "Record", "kind": value.kind, "meta": value.meta, "arrays": list(value.arrays)}
    if isinstance(value, _VALUES):
        return {"$": type(value).__name__} | flatten_fields(value, path, arrays)
    raise DataError(f"{path}: a {type(value).__name__} cannot be kept")


def flatten_fields(value: Any, path: str, arrays: dict[str, AnyArray]) -> dict[str, Json]:
    """The fields of a dataclass as JSON, each under its name; see `flatten`. A `LATER` field is
    left out where it is at its default.
    """
    start = f"{path}." if path else ""
    return {
        f.name: flatten(getattr(value, f.name), start + f.name, arrays)
        for f in fields(value)
        if not (f.metadata.get("later") and _is_same(getattr(value, f.name), f.default))
    }


def _is_same(value: object, default: object) -> bool:
    return type(value) is type(default) and value == default


_CLASSES = {cls.__name__: cls for cls in _VALUES}


def restore(value: Any, path: str, arrays: Mapping[str, AnyArray]) -> Any:
    """What `flatten` took. Raises `DataError` for anything else."""
    if isinstance(value, list):
        return tuple(restore(v, f"{path}.{i}", arrays) for i, v in enumerate(value))
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return arrays[value["$array"]]
    if "$digest" in value:
        raise DataError(
            f"{path}: kept as a summary only (shape and CRC32); the values are not in the journal"
        )
    kind = value.get("$")
    if kind == "Scheme":
        return Scheme(value["value"])
    if kind == "map":
        return {k: restore(v, f"{path}.{k}", arrays) for k, v in value["items"]}
    if kind == "Record":
        return Record(
            value["kind"],
            value["meta"],
            {name: arrays[f"{path}/{name}"] for name in value["arrays"]},
        )
    if kind not in _CLASSES:
        raise DataError(f"{path}: unknown kind {kind!r}; written by a newer version?")
    return restore_fields(
        _CLASSES[kind], {k: v for k, v in value.items() if k != "$"}, path, arrays
    )


def restore_fields(
    cls: type[Any], meta: Mapping[str, Any], path: str, arrays: Mapping[str, AnyArray]
) -> Any:
    """The dataclass whose fields `flatten_fields` took. Raises `DataError` where they do not fit
    it.
    """
    start = f"{path}." if path else ""
    wanted = field_types(cls)  # type: ignore[arg-type]  # a class is hashable
    try:
        values = {name: restore(value, start + name, arrays) for name, value in meta.items()}
        for name, value in values.items():
            if not fits(value, wanted.get(name, Any)):
                raise TypeError(f"{name} is a {type(value).__name__}")
        return cls(**values)
    except DataError:
        raise
    except _MISFITS as error:
        raise DataError(f"{cls.__name__}: cannot be read back: {error!s:.200}") from None


def _record(value: Operation | Result, summary: bool) -> Record:
    arrays: dict[str, AnyArray] = {}
    meta = flatten_fields(value, "", arrays)
    for name in _SUMMARISED if summary else ():
        if name in arrays:
            array = np.ascontiguousarray(_little(arrays.pop(name), name))
            meta[name] = {"$digest": [array.dtype.str, [*array.shape], zlib.crc32(array.tobytes())]}
    return Record(type(value).__name__, meta, arrays)


def operation_record(operation: Operation, *, summary: bool = False) -> Record:
    """The record of an operation. With `summary`, a `Multiply`'s inputs are kept as shape and CRC32
    only.
    """
    return _record(operation, summary)


def result_record(result: Result, *, summary: bool = False) -> Record:
    """The record of a result. With `summary`, a `MultiplyResult`'s codes and word sums are kept as
    shape and CRC32 only.
    """
    return _record(result, summary)


def operation_from(record: Record) -> Operation:
    """The operation of a record, exactly. Raises `DataError` for a summary and for anything that is
    no operation.
    """
    return _from(record, get_args(Operation), "operation")  # type: ignore[no-any-return]


def result_from(record: Record) -> Result:
    """The result of a record, exactly. Raises `DataError` for a summary and for anything that is no
    result.
    """
    return _from(record, get_args(Result), "result")  # type: ignore[no-any-return]


def _from(record: Record, classes: tuple[type[Any], ...], what: str) -> Any:
    cls = {c.__name__: c for c in classes}.get(record.kind)
    if cls is None:
        raise DataError(f"record of kind {record.kind!r} is no {what}")
    return restore_fields(cls, record.meta, "", record.arrays)


def matches(record: Record, operation: Operation) -> bool:
    """Whether `operation` is the one that `record` keeps, bit for bit (for a summary: by shape and
    CRC32). Fields that a record of an older version has not are at their defaults.
    """
    if record == operation_record(operation, summary=record.summary):
        return True
    if record.summary or record.kind != type(operation).__name__:
        return False
    return operation_record(operation_from(record)) == operation_record(operation)
