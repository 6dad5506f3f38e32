"""Bytes made wrong in the ways in which files and messages go wrong: flipped, cut, doubled,
spliced, and with tokens put in that parsers stumble over. Knows nothing of any parser.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

TOKENS = tuple(
    token.encode("utf-8")
    for token in (
        *("1e999", "-1e999", "nan", "-inf", "1e-320", "-0", "0", "-1", "65536", "2147483648"),
        *("9223372036854775808", "1" + "0" * 400, "9" * 5000, "0x" + "f" * 4000, "MAX", "MIN"),
        *("[" * 3000, "{" * 500, "((" * 300, "a." * 400 + "b=1", "#15abcde", "#0", "#9999999999"),
        *("true", "null", "[]", "{}", '""', "''", '"', "'", "\\", "\n", "\r\n", ";", ",", ":", "="),
        *("\x1b]0;t\x07", "\x1b[2J", "\u202e", "\ufeff", "\x00", "\x85", "é", "<b>", "%n", "$(x)"),
        *("../", "/dev/null", "*IDN?", "OUTP ON", "TRIG:COUN MAX", "while true do", "end", "..."),
    )
)


def mutated(random_: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data` with one to four things wrong; `others` are inputs of the same kind to splice from."""
    for _ in range(random_.choice((1, 1, 1, 2, 2, 3, 4))):
        data = random_.choice(_WAYS)(random_, data, others)
    return data


_Way = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _place(random_: random.Random, data: bytes) -> int:
    return random_.randrange(len(data) + 1)


def _flip(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _at in range(random_.choice((1, 2, 8))):
        changed[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _cut(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: _place(random_, data)]


def _drop(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random_, data)
    return data[:at] + data[at + random_.choice((1, 2, 4, 30)) :]


def _double(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, size = _place(random_, data), random_.choice((1, 4, 20, 200))
    return data[: at + size] + data[at : at + size] * random_.choice((1, 1, 40)) + data[at + size :]


def _insert(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random_, data)
    return data[:at] + random_.choice(TOKENS) + data[at:]


def _replace_number(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A token in the place of a run of digits, or of letters."""
    is_part = random_.choice((_is_digit, _is_letter))
    starts = [k for k in range(len(data)) if is_part(data[k]) and not (k and is_part(data[k - 1]))]
    if not starts:
        return data
    start = end = random_.choice(starts)
    while end < len(data) and is_part(data[end]):
        end += 1
    return data[:start] + random_.choice(TOKENS) + data[end:]


def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57 or byte in b".-+"


def _is_letter(byte: int) -> bool:
    return 65 <= (byte & ~32) <= 90


def _splice(random_: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random_.choice(others)
    return data[: _place(random_, data)] + other[_place(random_, other) :]


def _random(random_: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(random_, data)
    return data[:at] + random_.randbytes(random_.choice((1, 4, 40))) + data[at:]


_WAYS: tuple[_Way, ...] = (
    *(_flip, _cut, _drop, _double, _insert, _insert, _replace_number, _replace_number),
    *(_splice, _random),
)
