from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rram_hil.array import (
    Apply,
    ApplyResult,
    Cells,
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
from rram_hil.errors import DataError
from rram_hil.storage.codec import (
    Record,
    decode,
    encode,
    matches,
    operation_from,
    operation_record,
    result_from,
    result_record,
)

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
VOLTS = st.floats(-5, 5)
BOUNDS = st.floats(allow_nan=False)


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, to the bit, all the way down."""
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    if isinstance(a, float):
        return isinstance(b, float) and repr(a) == repr(b)
    return type(a) is type(b) and a == b


def per_cell(n: int, elements: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.one_of(elements, hnp.arrays(np.float64, n, elements=elements))


@st.composite
def cells(draw: st.DrawFn) -> Cells:
    index = draw(st.lists(st.integers(0, 4 * 300 * 70 - 1), unique=True, max_size=12))
    return Cells(*np.unravel_index(np.array(index, dtype=np.int64), (4, 300, 70)))


@st.composite
def steps(draw: st.DrawFn, n: int, measure: str | None = None) -> Step:
    lines = [draw(st.one_of(st.none(), per_cell(n, VOLTS))) for _ in range(3)]
    width = draw(st.floats(1e-9, 1))
    what = measure or draw(st.sampled_from(("no", "current", "gate")))
    others = [draw(st.one_of(st.none(), VOLTS)) for _ in range(2)]
    return Step(*lines, width, what, *others, what == "current" and draw(st.booleans()))  # type: ignore[arg-type]


@st.composite
def applies(draw: st.DrawFn) -> Apply:
    batch = draw(cells())
    n = len(batch)
    stop = draw(st.one_of(st.none(), st.builds(Stop, per_cell(n, BOUNDS), per_cell(n, BOUNDS))))
    taken = [*draw(st.lists(steps(n), max_size=3)), draw(steps(n, "current"))]
    scheme = draw(st.sampled_from(list(Scheme)))
    compliance = draw(st.one_of(st.none(), FLOATS))
    return Apply(
        batch,
        tuple(taken),
        scheme,
        compliance,
        stop,
        draw(st.integers(1, 9)),
        draw(st.text(max_size=5)),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    batch = draw(cells())
    n = len(batch)

    def train() -> PulseTrain:
        ramps = [Ramp(draw(per_cell(n, VOLTS)), draw(VOLTS), draw(VOLTS)) for _ in range(2)]
        others = [draw(st.one_of(st.none(), VOLTS)) for _ in range(2)]
        return PulseTrain(*ramps, draw(st.floats(1e-9, 1)), *others)

    low = draw(hnp.arrays(np.float64, n, elements=st.floats(0, 1e-4)))
    pulses = draw(
        st.one_of(st.integers(0, 99), hnp.arrays(np.int64, n, elements=st.integers(0, 10**6)))
    )
    return Program(
        batch,
        low,
        low + 1e-6,
        train(),
        train(),
        draw(steps(n, "current")).without_gate(),
        pulses,
        label="p",
    )


@st.composite
def multiplies(draw: st.DrawFn) -> Multiply:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5))
    inputs = draw(hnp.arrays(np.int16, shape, elements=st.integers(-127, 127)))
    others = st.one_of(st.none(), VOLTS)
    return Multiply(
        *(1, 2, 3, draw(st.integers(1, 4)), inputs),
        read_v=draw(VOLTS),
        words=draw(st.booleans()),
        body_v=draw(others),
        unselected_wl_v=draw(others),
    )


@st.composite
def write_words(draw: st.DrawFn) -> WriteWords:
    batch = draw(cells())
    values = draw(hnp.arrays(np.int32, len(batch), elements=st.integers(-(2**31) + 1, 2**31 - 1)))
    return WriteWords(batch, values, draw(st.booleans()), "w")


OPERATIONS = st.one_of(
    applies(),
    programs(),
    multiplies(),
    write_words(),
    st.builds(Wait, st.floats(0, 1e9), st.text()),
)
SPANS = st.builds(Span, FLOATS, FLOATS)


@st.composite
def results(draw: st.DrawFn) -> Result:
    n, m = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    values = hnp.arrays(np.float64, (n, m), elements=FLOATS)
    counts = hnp.arrays(np.int64, n)
    column = hnp.arrays(np.float64, n, elements=FLOATS)
    tail = (draw(SPANS), draw(st.booleans()), draw(FLOATS))
    status = hnp.arrays(np.uint8, (n, m))
    apply = ApplyResult(
        draw(values),
        draw(values),
        draw(status),
        draw(values),
        draw(counts),
        draw(counts),
        *tail,
        draw(st.one_of(st.none(), values)),
    )
    inside = draw(hnp.arrays(np.bool_, n))
    flags = draw(hnp.arrays(np.uint8, n))
    program = ProgramResult(
        draw(column), flags, inside, draw(counts), draw(counts), draw(counts), *tail
    )
    sums = draw(st.one_of(st.none(), hnp.arrays(np.int64, (n, m))))
    multiply = MultiplyResult(
        draw(hnp.arrays(np.int32, (n, m))), draw(FLOATS), sums, 3, True, tail[0]
    )
    return draw(
        st.sampled_from((apply, program, multiply, WordsResult(n, tail[0]), WaitResult(tail[0])))
    )


@given(OPERATIONS)
def test_every_operation_comes_back_exactly(operation: Operation) -> None:
    record = Record.from_bytes(operation_record(operation).to_bytes())
    assert same(operation_from(record), operation)
    assert matches(record, operation)


@given(results())
def test_every_result_comes_back_exactly(result: Result) -> None:
    assert same(result_from(Record.from_bytes(result_record(result).to_bytes())), result)


@given(
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(),
            hnp.unsigned_integer_dtypes(),
            hnp.floating_dtypes(sizes=(16, 32, 64)),
        ),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
    )
)
def test_an_array_keeps_type_shape_and_bits(array: Any) -> None:
    back = decode(encode("x", {}, {"a": array})).arrays["a"]
    assert same(back, array.astype(array.dtype.newbyteorder("<")))
    assert back.flags.writeable


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda k: k != "$float"), JSON, max_size=4))
def test_meta_keeps_nan_and_infinity(meta: dict[str, Any]) -> None:
    assert repr(decode(encode("x", meta, {})).meta) == repr(meta)


def test_columns_of_equal_or_small_values_take_little_room() -> None:
    n = 100_000
    arrays = {"same": np.full(n, 1e-6), "nan": np.full(n, np.nan), "rows": np.arange(n) % 200}
    assert len(encode("x", {}, arrays)) < 1.01 * n


def test_a_summary_keeps_shape_and_crc_and_recognises_the_operation() -> None:
    inputs = np.arange(12, dtype=np.int16).reshape(3, 4)
    operation = Multiply(0, 0, 0, 8, inputs)
    record = Record.from_bytes(operation_record(operation, summary=True).to_bytes())
    assert record.summary
    assert record.shape("inputs") == (3, 4)
    assert matches(record, operation)
    assert not matches(record, Multiply(0, 0, 0, 8, inputs[::-1]))
    with pytest.raises(DataError, match="summary"):
        operation_from(record)
    result = result_record(MultiplyResult(np.zeros((3, 8), np.int32), 1e-9), summary=True)
    with pytest.raises(DataError, match="summary"):
        result_from(result)


def test_a_changed_operation_does_not_match() -> None:
    record = operation_record(Wait(1.0))
    assert not matches(record, Wait(np.nextafter(1.0, 2.0).item()))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([object()])])
def test_arrays_that_are_no_numbers_are_refused(array: Any) -> None:
    with pytest.raises(DataError, match="only booleans, integers and floats"):
        encode("x", {}, {"a": array})


@given(st.binary(max_size=60))
def test_foreign_bytes_are_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError, match="damaged record"):
        decode(data)


def test_a_result_is_no_operation() -> None:
    with pytest.raises(DataError, match="no operation"):
        operation_from(result_record(WaitResult()))


def test_an_operation_of_an_older_version_is_recognised() -> None:
    """Fields that came later are at their defaults there."""
    train = PulseTrain(Ramp(1.0, 2.0), Ramp(2.0, 2.0), 1e-7)
    cells = Cells.of([(0, 0, 0)])
    step = Step(0.2, 0.0, 3.0, 1e-6, "current")
    program = Program(cells, np.array([1e-6]), np.array([2e-6]), train, train, step)
    record = operation_record(program)
    older = Record(
        record.kind, {k: v for k, v in record.meta.items() if k != "verify"}, record.arrays
    )
    assert matches(older, program)
    assert not matches(older, replace(program, verify="coded"))
