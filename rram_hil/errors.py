"""The errors of the package: one small tree, each saying what was tried, on what, and what to
do.

What a program may want to decide by is an attribute, never a part of the text: `str(error)` is for
people.
"""

from __future__ import annotations

import difflib
import json
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath

LONGEST_TOLD = 1000
"""Characters of the text of an error."""
FRAMES_TOLD = 5
"""How many of the last frames of a foreign exception a `ProtocolError` names."""


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Control characters but line feed and tab, what turns or hides text, and halves of surrogates."""


def printable(text: str) -> str:
    """Text of a file, a board or an instrument as it may reach a terminal or a page: what would
    act there instead of being seen stands as its escape, ESC as `\\x1b`.
    """
    return _UNPRINTABLE.sub(lambda c: c[0].encode("unicode_escape").decode("ascii"), text)


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the known name that `name` is nearest to; empty for none."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def shortened(text: str) -> str:
    """The text; of one longer than `LONGEST_TOLD` the middle is left out: a key or a value of a
    file may be as long as one likes.
    """
    if len(text) <= LONGEST_TOLD:
        return text
    half = LONGEST_TOLD // 2
    return f"{text[:half]} ... {text[-half:]}"


@dataclass(eq=False, repr=False, kw_only=True)
class BenchError(Exception):
    """Anything that stops work on the bench. The command line prints it in one line and exits with
    2.

    `message` says what is wrong; `where` names what it is about (a file, a section, the resource of
    a link) and `chip` the chip, where it is about one. `step` (from 1) and `step_name` tell the
    step of a recipe in which it arose; 0 outside of one. `outputs_off` is True where the outputs
    are off, False where that could not be verified, None where nobody has said.
    """

    message: str = field(default="", kw_only=False)
    where: str = ""
    chip: str = ""
    step: int = field(default=0, init=False)
    step_name: str = field(default="", init=False)
    outputs_off: bool | None = None

    def __str__(self) -> str:
        step = f"step {self.step} ({self.step_name})" if self.step else ""
        return shortened(
            printable(": ".join(part for part in (step, self.where, self.message) if part))
        )

    def data(self) -> str:
        """The attributes that are set, but for `message` and the step, as JSON; empty for none."""
        kept = {
            f.name: value
            for f in fields(self)
            if f.init and f.kw_only and (value := getattr(self, f.name)) is not f.default
        }
        return json.dumps(kept, default=repr) if kept else ""


@dataclass(eq=False, repr=False, kw_only=True)
class ConfigError(BenchError):
    """A bench file, recipe or argument is wrong: names the key, the value and what is allowed.

    `key` is the dotted path of the key and `value` what stood there, where one key is to blame.
    """

    key: str = ""
    value: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class LimitError(BenchError):
    """An operation was refused before any output moved: names the cell, the line, the value, the
    limit.

    `cell` is (tile, row, column), None where no single cell is to blame; `line` what passes the
    limit ("BL", "width"), `value` how far it goes and `allowed` the range (lowest, highest), SI
    units.
    """

    cell: tuple[int, int, int] | None = None
    line: str = ""
    value: float | None = None
    allowed: tuple[float, float] | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class LinkError(BenchError):
    """The link to an instrument failed: timeout, disconnect, framing or checksum."""

    @property
    def resource(self) -> str:
        """The resource of the link, as the bench file names it; empty where it is not known."""
        return self.where


@dataclass(eq=False, repr=False, kw_only=True)
class UnknownOutcomeError(LinkError):
    """The link failed while an operation was under way: it may or may not have been carried out.

    `so_far` is what its driver knows of it (a `SoFar`), None where it knows nothing.
    """

    so_far: object = field(default=None, init=False)


@dataclass(eq=False, repr=False, kw_only=True)
class InstrumentError(BenchError):
    """An instrument reported an error: its code, its text and the command that caused it."""

    code: int = 0
    command: str = ""


class ImpossibleResultError(InstrumentError):
    """What a driver returned cannot be. It ends the run, whatever the protocol makes of errors."""


class DataError(BenchError):
    """A file or an array holds something unusable: NaN weights, a foreign run file, a damaged
    journal.
    """


class AbortedError(BenchError):
    """The operator stopped the run (Ctrl-C, SIGTERM, a closed terminal, `bench.abort()`); outputs
    are off, the journal is whole.
    """


@dataclass(eq=False, repr=False, kw_only=True)
class ProtocolError(BenchError):
    """A protocol of a recipe, or a computation of it, raised what is no `BenchError`: a bug in it.

    `protocol` is its name in the recipe, `kind` the type of the exception and `frames` where it was
    raised, the last frame last, each "file.py:12 in run". The exception itself is `__cause__`.
    """

    protocol: str = ""
    kind: str = ""
    frames: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Exception, protocol: str, runner: str) -> ProtocolError:
        """What code of `protocol` raised when the module file `runner` called it: type, message and
        the place in the protocol's own file.
        """
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != runner]
        own = _places([f for f in frames if f.filename == frames[0].filename])
        return cls(
            f"protocol {protocol}: {_told(error)}{''.join(f' ({place})' for place in own[-1:])}",
            protocol=protocol,
            kind=type(error).__name__,
            frames=_places(frames),
        )


def first_line(text: str) -> str:
    """The first line of what a library says of its own errors, empty where it says nothing."""
    return (text.strip().splitlines() or [""])[0]


def short(value: object, most: int = 60) -> str:
    """A value as text for one line of an error: what is long is cut."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whose own text fails is told by its type
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def told_with_frames(error: Exception) -> str:
    """The text of an error; with the last frames where it is a bug, not a `BenchError`."""
    if isinstance(error, BenchError):
        text, frames = str(error), getattr(error, "frames", ())
    else:
        text, frames = _told(error), _places(traceback.extract_tb(error.__traceback__))
    return f"{text}{'; last frames: ' if frames else ''}{', '.join(frames)}"


def told_with_place(error: BaseException) -> str:
    """Type, text and the last place of a bug, and the notes on it, in one line."""
    places = _places(traceback.extract_tb(error.__traceback__))
    notes: Iterable[str] = getattr(error, "__notes__", ())
    told = f"{_told(error)}{''.join(f' ({place})' for place in places[-1:])}"
    return "; ".join((told, *dict.fromkeys(notes)))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}{': ' if str(error) else ''}{error}"


def _places(frames: Sequence[traceback.FrameSummary]) -> tuple[str, ...]:
    """Where the last frames stand, without the folders of this machine."""
    last = frames[-FRAMES_TOLD:]
    return tuple(f"{PurePath(f.filename).name}:{f.lineno} in {f.name}" for f in last)
