"""Patterns of Lua 5.0: what `string.find`, `gfind` and `gsub` look for.

Written from the Lua 5.0 reference manual, section 5.3.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass, field

from .lua_values import LuaError, Value

SPECIAL = "^$*+?.([%-"
CLASSES = {
    "a": string.ascii_letters,
    "c": "".join(map(chr, (*range(32), 127))),
    "d": string.digits,
    "l": string.ascii_lowercase,
    "p": string.punctuation,
    "s": string.whitespace,
    "u": string.ascii_uppercase,
    "w": string.ascii_letters + string.digits,
    "x": string.hexdigits,
    "z": "\0",
}
MOST_DEPTH = 200
_POSITION, _OPEN = -2, -1


@dataclass(frozen=True)
class Match:
    """Where a pattern was found, and its captures: texts, or positions (from 1) of `()`."""

    start: int
    end: int
    captures: tuple[Value, ...]


@dataclass
class _Matcher:
    """One try of a pattern at one place of a text."""

    text: str
    pattern: str
    depth: int = 0
    places: list[list[int]] = field(default_factory=list)
    """Start and length of each capture; a length below zero says that it is open or a position."""

    def match(self, at: int, p: int) -> int | None:
        """Where the rest of the pattern, from `p` on, ends if it begins at `at`."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise LuaError("pattern too complex")
        try:
            return self._match(at, p)
        finally:
            self.depth -= 1

    def _match(self, at: int, p: int) -> int | None:
        pattern = self.pattern
        while p < len(pattern):
            head = pattern[p]
            if head in "()":
                return self._open(at, p) if head == "(" else self._close(at, p)
            if head == "$" and p + 1 == len(pattern):
                return at if at == len(self.text) else None
            taken = self._coded(at, p) if head == "%" else (at, p)
            if taken is None:
                return None
            if taken != (at, p):
                at, p = taken
                continue
            after = self._after(p)
            sign = pattern[after : after + 1]
            if sign in ("*", "+", "-"):
                return self._repeated(at, p, after, sign)
            is_one = self._is_one(at, p)
            if sign == "?":
                if is_one and (end := self.match(at + 1, after + 1)) is not None:
                    return end
                p = after + 1
            elif is_one:
                at, p = at + 1, after
            else:
                return None
        return at

    def _open(self, at: int, p: int) -> int | None:
        is_position = self.pattern[p + 1 : p + 2] == ")"
        self.places.append([at, _POSITION if is_position else _OPEN])
        end = self.match(at, p + 2 if is_position else p + 1)
        if end is None:
            self.places.pop()
        return end

    def _coded(self, at: int, p: int) -> tuple[int, int] | None:
        """Places after `%b` or `%1` and what it takes, None where it takes nothing; the same
        places for any other code.
        """
        code = self.pattern[p + 1 : p + 2]
        if code == "b":
            end = self._balanced(at, p + 2)
            return None if end is None else (end, p + 4)
        if code.isdigit():
            word = self._captured(int(code) - 1)
            return (at + len(word), p + 2) if self.text.startswith(word, at) else None
        return at, p

    def _repeated(self, at: int, p: int, after: int, sign: str) -> int | None:
        if sign == "-":
            while (end := self.match(at, after + 1)) is None:
                if not self._is_one(at, p):
                    return None
                at += 1
            return end
        last = at
        while self._is_one(last, p):
            last += 1
        for here in range(last, at - (sign == "*"), -1):
            end = self.match(here, after + 1)
            if end is not None:
                return end
        return None

    def _close(self, at: int, p: int) -> int | None:
        for place in reversed(self.places):
            if place[1] == _OPEN:
                place[1] = at - place[0]
                end = self.match(at, p + 1)
                if end is None:
                    place[1] = _OPEN
                return end
        raise LuaError("invalid pattern capture")

    def _balanced(self, at: int, p: int) -> int | None:
        if p + 1 >= len(self.pattern):
            raise LuaError("unbalanced pattern")
        opens, closes = self.pattern[p], self.pattern[p + 1]
        if self.text[at : at + 1] != opens:
            return None
        depth = 1
        for here in range(at + 1, len(self.text)):
            letter = self.text[here]
            if letter == closes:
                depth -= 1
                if not depth:
                    return here + 1
            elif letter == opens:
                depth += 1
        return None

    def _captured(self, number: int) -> str:
        if not 0 <= number < len(self.places) or self.places[number][1] == _OPEN:
            raise LuaError("invalid capture index")
        start, length = self.places[number]
        return self.text[start : start + max(length, 0)]

    def _after(self, p: int) -> int:
        """Where the single-character item at `p` ends."""
        pattern = self.pattern
        if pattern[p] == "%":
            if p + 1 >= len(pattern):
                raise LuaError("malformed pattern (ends with `%')")
            return p + 2
        if pattern[p] != "[":
            return p + 1
        p += 2 if pattern[p + 1 : p + 2] == "^" else 1
        is_first = True
        while is_first or pattern[p : p + 1] != "]":
            is_first = False
            if p >= len(pattern):
                raise LuaError("malformed pattern (missing `]')")
            p += 2 if pattern[p] == "%" else 1
        return p + 1

    def _is_one(self, at: int, p: int) -> bool:
        """Whether the item at `p` takes the character at `at`."""
        if at >= len(self.text):
            return False
        letter, head = self.text[at], self.pattern[p]
        if head == "[":
            return self._is_in_set(letter, p)
        if head == "%":
            return _is_of_class(letter, self.pattern[p + 1])
        return head in (".", letter)

    def _is_in_set(self, letter: str, p: int) -> bool:
        pattern, end = self.pattern, self._after(p) - 1
        is_inverse = pattern[p + 1] == "^"
        p += 2 if is_inverse else 1
        while p < end:
            if pattern[p] == "%":
                if _is_of_class(letter, pattern[p + 1]):
                    return not is_inverse
                p += 2
            elif pattern[p + 1 : p + 2] == "-" and p + 2 < end:
                if pattern[p] <= letter <= pattern[p + 2]:
                    return not is_inverse
                p += 3
            else:
                if pattern[p] == letter:
                    return not is_inverse
                p += 1
        return is_inverse

    def captures(self) -> tuple[Value, ...]:
        if any(length == _OPEN for _, length in self.places):
            raise LuaError("unfinished capture")
        return tuple(
            start + 1.0 if length == _POSITION else self.text[start : start + length]
            for start, length in self.places
        )


def _is_of_class(letter: str, kind: str) -> bool:
    members = CLASSES.get(kind.lower())
    if members is None:
        return letter == kind
    return (letter in members) == kind.islower()


def match_at(pattern: str, text: str, at: int) -> Match | None:
    """A pattern (without `^`) at one place of a text. Raises `LuaError` for what is no pattern."""
    matcher = _Matcher(text, pattern)
    end = matcher.match(at, 0)
    return None if end is None else Match(at, end, matcher.captures())


def search(pattern: str, text: str, start: int) -> Match | None:
    """The first place from `start` on where a pattern is found."""
    if pattern.startswith("^"):
        return match_at(pattern[1:], text, start)
    tries = (match_at(pattern, text, at) for at in range(start, len(text) + 1))
    return next((match for match in tries if match is not None), None)


def every(pattern: str, text: str) -> Iterator[Match]:
    """All places where a pattern is found, one after another; one at the start for `^`."""
    at = 0
    while at <= len(text) and (match := search(pattern, text, at)) is not None:
        yield match
        if pattern.startswith("^"):
            return
        at = match.end if match.end > match.start else match.end + 1
