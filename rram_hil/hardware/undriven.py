"""Instruments that are known by name and that nothing here drives: why, and what to use instead.

A package tells of one by an entry point in the group `rram_hil.undriven`: an `Undriven`, under the
name that a bench file might give as its `kind`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rram_hil.errors import ConfigError
from rram_hil.plugins import load, names

GROUP = "rram_hil.undriven"


@dataclass(frozen=True)
class Undriven:
    """One kind: a regular expression of its models as they tell themselves, in capitals and without
    "MODEL", and one line that says what is missing and what to use.
    """

    models: str
    why: str


def undriven_kinds() -> dict[str, Undriven]:
    """Every kind that is known and not driven. Raises `ConfigError` where a package's entry is no
    `Undriven`.
    """
    known = {}
    for name in names(GROUP):
        entry = load(GROUP, name, "instrument that is not driven")
        if not isinstance(entry, Undriven):
            raise ConfigError(f"{GROUP}: {name!r} is no {Undriven.__module__}.Undriven")
        known[name] = entry
    return known


def why_undriven(told: str) -> str:
    """Why nobody drives an instrument that tells itself so ("MODEL 4200A", "707A"), and what to
    use; empty for any that is not known to be so.
    """
    model = told.upper().removeprefix("MODEL").strip().partition(" ")[0]
    return next((u.why for u in undriven_kinds().values() if re.fullmatch(u.models, model)), "")
