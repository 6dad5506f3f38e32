"""The study of the paper: its own arms, and those beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rram_hil.errors import ConfigError, near
from rram_hil.studies.study_file import Study, parse_study


def _several(row: dict[str, Any], *percents: int, **more: Any) -> tuple[dict[str, Any], ...]:
    """A row with the model's fraction of words, and rows with other fractions, in per cent."""
    others = (
        {**row, **more, "name": f"{row['name']} ({percent} %)", "fraction": percent / 100}
        for percent in percents
    )
    return (row, *others)


ARMS: tuple[dict[str, Any], ...] = (
    {"name": "float", "arm": "float"},
    {"name": "one-shot", "arm": "one-shot"},
    {"name": "variation-aware", "arm": "one-shot", "teaching": "variation-aware"},
    {"name": "KD", "arm": "one-shot", "teaching": "distilled"},
    *_several({"name": "RSA", "arm": "random-words"}, 10, 20),
    *_several({"name": "KD + RSA", "arm": "random-words", "teaching": "distilled"}, 2, 10),
    {
        "name": "KD + RSA (places known)",
        "arm": "random-words",
        "teaching": "distilled",
        "places_known": True,
    },
    {"name": "fault-aware", "arm": "fault-aware"},
    {"name": "fault-aware (flip)", "arm": "fault-aware", "faults": "flip"},
    {"name": "fault-aware (permuted)", "arm": "fault-aware", "faults": "permute"},
    *(
        row
        for known, faults in (("faults and places known", "partner"), ("permuted", "permute"))
        for row in _several(
            {
                "name": f"KD + RSA ({known})",
                "arm": "random-words",
                "teaching": "distilled",
                "places_known": True,
                "scales": True,
                "faults": faults,
            },
            8,
        )
    ),
    *_several({"name": "chosen words", "arm": "chosen-words"}, 4, 8, mac_share=0.5),
    *_several(
        {"name": "chosen words (permuted)", "arm": "chosen-words", "faults": "permute"},
        4,
        8,
        mac_share=0.5,
    ),
    {"name": "small layers", "arm": "small-layers"},
    {"name": "small layers (places known)", "arm": "small-layers", "places_known": True},
    {"name": "low-rank adapters", "arm": "low-rank"},
    {"name": "recalibration", "arm": "recalibration"},
    {"name": "recalibration (faults known)", "arm": "recalibration", "faults": "partner"},
    {"name": "norm recalibration", "arm": "norm-recalibration"},
    {"name": "norm recalibration (L1)", "arm": "norm-recalibration", "spread": "l1"},
    {"name": "norm recalibration (TopK)", "arm": "norm-recalibration", "spread": "topk"},
    *(
        {
            "name": f"R-V-W (largest {percent} %)",
            "arm": "selected-verify",
            "by": "magnitude",
            "fraction": percent / 100,
        }
        for percent in (5, 20, 50)
    ),
    {"name": "SWIM 10 %", "arm": "selected-verify", "fraction": 0.1},
    {"name": "SWIM 10 % + RSA", "arm": "selected-verify", "fraction": 0.1, "words": 0.05},
    {"name": "GDP", "arm": "gradient-programming"},
    {"name": "R-V-W", "arm": "write-verify"},
    {"name": "coded R-V-W", "arm": "write-verify", "verify_by": "codes"},
)
"""Rows of the table, as `[[arm]]` of a study file. None has a comma, which separates them in
`--arms`.
"""
SHORT: dict[str, tuple[int, tuple[str, ...]]] = {"digits": (2, ("A",))}
"""Chips and devices by default where a study is to be short; ten chips elsewhere."""


def paper_study(
    model: str,
    data: Path | None = None,
    arms: Sequence[str] = (),
    devices: Sequence[str] = (),
    chips: int | None = None,
) -> Study:
    """The study of the paper on a model. `arms` are names of rows, all of them by default. Raises
    `ConfigError` for what there is not.
    """
    known = [str(arm["name"]) for arm in ARMS]
    missing = next((name for name in arms if name not in known), None)
    if missing is not None:
        raise ConfigError(
            f"--arms: {missing!r} is unknown; there is: {', '.join(known)}{near(missing, known)}"
        )
    few, usual = SHORT.get(model, (10, ("A",)))
    return parse_study(
        {
            "title": f"The paper's table, {model}",
            "model": model,
            "data": None if data is None else str(data.resolve()),
            "chips": few if chips is None else chips,
            "devices": list(devices or usual),
            "arm": [arm for arm in ARMS if not arms or arm["name"] in arms],
        },
        "study paper",
    )
