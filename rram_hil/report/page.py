"""The report of a run: one HTML file that holds everything it shows and needs nothing else to be
read.

The caller describes what is shown with the plain frozen values below. This module draws, and
computes simple statistics of what it is given (means, spreads, sums, histograms), nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rram_hil.errors import DataError
from rram_hil.report.picture import (
    Axis,
    Plot,
    Rgb,
    data_uri,
    diverging,
    drawing,
    label,
    minus,
    sequential,
    ticks,
)
from rram_hil.storage.safe_files import replace
from rram_hil.types import FloatArray

Clock = Literal["virtual", "wall"]
BoolArray = NDArray[np.bool_]

UNUSED = (0x9A, 0xA0, 0xA6)
UNREADABLE = (0xE0, 0x10, 0x10)
STUCK_LOW = (0xFF, 0x2B, 0xD6)
STUCK_HIGH = (0xFF, 0x91, 0x00)
"""Colours (RGB) of the cells of a map that no colour of the scale may stand for."""
TILES_OPEN = 2
"""A map of more tiles shows its first and keeps the next ones folded."""
TILES_SHOWN = 8
"""Tiles of a map that are drawn; the numbers and histograms always cover all."""
PICTURE_CELLS = 512
"""A tile with more rows or columns is averaged over square blocks of cells to fit."""


@dataclass(frozen=True)
class Account:
    """Who, when and what. `started` is a UTC time as text; `versions` are (name, version) pairs."""

    chip: str
    bench: str
    recipe: str
    started: str
    clock: Clock
    operator: str = ""
    seed: int | None = None
    versions: tuple[tuple[str, str], ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """One number at the head of the report, as text with its unit, and what it is."""

    value: str
    label: str


def _check_fractions(name: str, values: Iterable[float]) -> None:
    for value in values:
        if value < 0 or value > 1:
            raise DataError(f"report: {name}: an accuracy is a fraction from 0 to 1, not {value:g}")


@dataclass(frozen=True)
class Row:
    """One row of the results: a way of bringing the network onto the chip, what it reaches, what it
    costs.

    `accuracy` has one fraction (0..1) a chip. Costs are of one chip, None where they do not apply.
    `reference` marks what does not run on the chip (the float network). Raises `DataError` for an
    accuracy beyond 0..1.
    """

    name: str
    accuracy: tuple[float, ...]
    pulses: float | None = None
    reads: float | None = None
    bench_s: float | None = None
    on_chip_words: float | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        _check_fractions(self.name, self.accuracy)


@dataclass(frozen=True)
class ResultTable:
    """Rows measured alike: `images` test images, the same on every chip (0: not said)."""

    title: str
    rows: tuple[Row, ...]
    images: int = 0
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar: accuracies as fractions (0..1), one a chip; the bar is their mean. `reference`: a
    line instead of a bar.
    """

    name: str
    accuracy: tuple[float, ...]
    reference: bool = False

    def __post_init__(self) -> None:
        _check_fractions(self.name, self.accuracy)


@dataclass(frozen=True)
class BarChart:
    """Accuracy bars, measured over `images` test images (0: not said), which decides the digits."""

    title: str
    bars: tuple[Bar, ...]
    images: int = 0

    @classmethod
    def of(cls, table: ResultTable) -> BarChart:
        """The bars of a table's rows, its reference rows as lines."""
        return cls(
            table.title,
            tuple(Bar(row.name, row.accuracy, row.reference) for row in table.rows),
            table.images,
        )


@dataclass(frozen=True)
class CostPart:
    """A part of a procedure: what was done how many times, and how long all of it took on the bench
    clock (s).
    """

    name: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What compensation costs on one chip: full read-verify-write against sparse adaptation, part
    by part.

    `durations` are the (name, seconds) pairs that the times are made of on a virtual clock.
    """

    title: str
    verify: tuple[CostPart, ...]
    adaptation: tuple[CostPart, ...]
    clock: Clock
    durations: tuple[tuple[str, float], ...] = ()
    text: str = ""

    @property
    def verify_s(self) -> float:
        """All parts of read-verify-write (s)."""
        return sum(part.seconds for part in self.verify)

    @property
    def adaptation_s(self) -> float:
        """All parts of the adaptation (s)."""
        return sum(part.seconds for part in self.adaptation)

    @property
    def ratio(self) -> float:
        """Read-verify-write over adaptation; NaN where the adaptation took no time."""
        return self.verify_s / self.adaptation_s if self.adaptation_s > 0 else math.nan


@dataclass(frozen=True, eq=False)
class MapPanel:
    """Target and programmed conductance of the cells of one chip, in S, shape (tiles, rows,
    columns) or (rows, columns).

    A NaN target is a cell that is not used, a NaN programmed value a cell that could not be read.
    `stuck_low` and `stuck_high` mark cells stuck at low and at high resistance. Raises `DataError`
    where the shapes differ.
    """

    title: str
    target_s: FloatArray
    programmed_s: FloatArray
    stuck_low: BoolArray | None = None
    stuck_high: BoolArray | None = None
    text: str = ""

    def __post_init__(self) -> None:
        shape = np.shape(self.target_s)
        if len(shape) not in (2, 3) or 0 in shape:
            raise DataError(
                f"report: {self.title}: a map is (tiles, rows, columns) or (rows, columns), not"
                f" {shape}"
            )
        for name in ("programmed_s", "stuck_low", "stuck_high"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise DataError(
                    f"report: {self.title}: {name} has shape {np.shape(value)}, target_s {shape}"
                )


@dataclass(frozen=True)
class Report:
    """All that a report shows, in the order in which it shows it. `notes` say what is simulated and
    what to keep in mind.
    """

    title: str
    account: Account
    key_figures: tuple[KeyFigure, ...] = ()
    results: tuple[ResultTable, ...] = ()
    charts: tuple[BarChart, ...] = ()
    costs: tuple[Cost, ...] = ()
    maps: tuple[MapPanel, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Map:
    """A panel's arrays, all of shape (tiles, rows, columns)."""

    target_s: FloatArray
    programmed_s: FloatArray
    used: BoolArray
    unreadable: BoolArray
    stuck_low: BoolArray
    stuck_high: BoolArray

    @classmethod
    def of(cls, panel: MapPanel) -> _Map:
        shape = np.shape(panel.target_s)
        shape = shape if len(shape) == 3 else (1, *shape)

        def marks(given: BoolArray | None) -> BoolArray:
            return (
                np.zeros(shape, dtype=np.bool_)
                if given is None
                else np.asarray(given, dtype=np.bool_).reshape(shape)
            )

        target = np.array(panel.target_s, dtype=np.float64).reshape(shape)
        programmed = np.array(panel.programmed_s, dtype=np.float64).reshape(shape)
        target[~np.isfinite(target)] = np.nan
        programmed[~np.isfinite(programmed)] = np.nan
        used = np.isfinite(target)
        low = used & marks(panel.stuck_low)
        high = used & marks(panel.stuck_high) & ~low
        unreadable = used & ~low & ~high & ~np.isfinite(programmed)
        return cls(target, programmed, used, unreadable, low, high)

    @property
    def responsive(self) -> BoolArray:
        """Used cells that can be read and are not stuck."""
        return self.used & ~self.unreadable & ~self.stuck_low & ~self.stuck_high

    @property
    def counted(self) -> BoolArray:
        """Responsive cells whose target lies above the lowest one (by more than 1 %) and above
        zero.
        """
        # Not the lowest of all: the target of a cell that is known to be stuck is what it was
        # measured at.
        lowest = float(self.target_s[self.responsive].min()) if self.responsive.any() else 0.0
        return self.responsive & (self.target_s > max(lowest * 1.01, 0.0))


def programming_error(panel: MapPanel) -> FloatArray:
    """G programmed / G target - 1 of every responsive cell with a target above the lowest, shape
    (n,).
    """
    cells = _Map.of(panel)
    return np.asarray(
        cells.programmed_s[cells.counted] / cells.target_s[cells.counted] - 1.0, dtype=np.float64
    )


def write_report(path: Path, report: Report) -> None:
    """Write the report as one HTML file, whole or not at all. Raises `DataError` where it cannot be
    written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(html(report), encoding="utf-8", newline="\n")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    replace(temporary, path)


def html(report: Report) -> str:
    """The report as HTML text."""
    title = escape(report.title)
    parts = [f"<header>\n<h1>{title}</h1>", f"<p>{_account(report.account)}</p>"]
    if report.key_figures:
        figures = "".join(
            f"<div><dt>{escape(f.label)}</dt><dd>{escape(f.value)}</dd></div>"
            for f in report.key_figures
        )
        parts.append(f'<dl class="figures">{figures}</dl>')
    parts.append("</header>\n<main>")
    if report.results or report.charts:
        parts.append("<section>\n<h2>Results</h2>")
        for k in range(max(len(report.results), len(report.charts))):
            pair = [_table(report.results[k])] if k < len(report.results) else []
            pair += [_bar_chart(report.charts[k])] if k < len(report.charts) else []
            parts += ['<div class="pair">', *pair, "</div>"]
        parts.append("</section>")
    if report.costs:
        parts += [
            "<section>\n<h2>What compensation costs</h2>",
            *map(_cost, report.costs),
            "</section>",
        ]
    parts += [_panel(panel) for panel in report.maps]
    if report.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(
            '<section class="notes">\n<h2>What is simulated, and other'
            f" notes</h2>\n<ul>{notes}</ul>\n</section>"
        )
    parts.append("</main>")
    return page(report.title, parts)


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML page in the report's style; `parts` are its body, as HTML."""
    return (
        _HEAD
        + f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def quantity(value: float, digits: int = 3) -> str:
    """A number as the report prints it: counts exactly, with commas, others to `digits` significant
    digits.
    """
    if not math.isfinite(value):
        return "not known"
    if float(value).is_integer() and abs(value) < 1e15:
        return minus(f"{int(value):,}")
    if abs(value) >= 10 ** (digits - 1):
        return minus(f"{value:,.0f}")
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return minus(f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.{digits - 1}e}")


def duration(seconds: float) -> str:
    """A time as the report prints it: ns, us, ms or s to 3 digits, with minutes or hours beside
    long ones.
    """
    if not math.isfinite(seconds):
        return "not known"
    for bound, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if 0 < abs(seconds) < bound * (1 - 5e-4):
            return f"{quantity(float(f'{seconds * factor:.3g}'))} {unit}"
    text = f"{quantity(float(f'{seconds:.3g}') if abs(seconds) < 100 else round(seconds))} s"
    if seconds >= 7200:
        return f"{text} ({seconds / 3600:.1f} h)"
    return f"{text} ({seconds / 60:.1f} min)" if seconds >= 120 else text


def per_cent(fraction: float, images: int = 0) -> str:
    """An accuracy as the report prints it: two decimals, one where fewer than 1,000 images were
    classified.
    """
    if not math.isfinite(fraction):
        return "not known"
    return f"{_points(fraction, images)} %"


def _points(fraction: float, images: int) -> str:
    return f"{fraction * 100:.{1 if 0 < images < 1000 else 2}f}"


def _account(account: Account) -> str:
    strong: Callable[[str], str] = lambda text: f"<strong>{escape(text)}</strong>"  # noqa: E731
    who = f" by {strong(account.operator)}" if account.operator else ""
    text = (
        f"Run{who} on {strong(account.started)}: chip {strong(account.chip)} on bench"
        f" {strong(account.bench)}, recipe {strong(account.recipe)}"
    )
    text += "." if account.seed is None else f", seed {strong(str(account.seed))}."
    if account.versions:
        text += (
            " Software: "
            + ", ".join(escape(f"{name} {version}") for name, version in account.versions)
            + "."
        )
    text += (
        " Times are those of the bench’s virtual clock, the sum of the durations that the simulated"
        " bench accounts for."
        if account.clock == "virtual"
        else " Times are measured with the wall clock."
    )
    return text + (f" {escape(account.remark)}" if account.remark else "")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _accuracy(values: Sequence[float], images: int) -> str:
    text = per_cent(_mean(values), images)
    if len(values) > 1:
        spread, low, high = float(np.std(values, ddof=1)), min(values), max(values)
        text += (
            f"<small>± {_points(spread, images)} ({_points(low, images)} to"
            f" {_points(high, images)})</small>"
        )
    return text


def _table(table: ResultTable) -> str:
    means = [_mean(row.accuracy) for row in table.rows if not row.reference]
    best = max((m for m in means if math.isfinite(m)), default=math.nan)
    columns = ("accuracy", "pulses", "reads", "bench time", "on-chip words")
    rows = []
    for row in table.rows:
        wins = not row.reference and _mean(row.accuracy) == best
        cells = [
            _accuracy(row.accuracy, table.images),
            *("–" if v is None else quantity(v) for v in (row.pulses, row.reads)),
            "–" if row.bench_s is None else duration(row.bench_s),
            "–" if row.on_chip_words is None else quantity(row.on_chip_words),
        ]
        kind = ' class="wins"' if wins else ' class="reference"' if row.reference else ""
        data = "".join(
            f'<td role="cell" data-label="{column}"><span>{cell}</span></td>'
            for column, cell in zip(columns, cells, strict=True)
        )
        name = escape(row.name) + (' <span class="best">best</span>' if wins else "")
        rows.append(f'<tr role="row"{kind}><th role="rowheader" scope="row">{name}</th>{data}</tr>')
    head = "".join(
        f'<th role="columnheader" scope="col">{name.capitalize()}</th>'
        for name in ("method", *columns)
    )
    return (
        '<div class="card"><table role="table"'
        f' class="results"><caption>{escape(table.title)}</caption>\n<thead role="rowgroup"><tr'
        f' role="row">{head}</tr></thead>\n<tbody role="rowgroup">'
        + "\n".join(rows)
        + f'</tbody></table>\n<p class="small">{_table_text(table, best)}</p></div>'
    )


def _table_text(table: ResultTable, best: float) -> str:
    chips = max((len(row.accuracy) for row in table.rows), default=0)
    text = []
    if table.images:
        text.append(f"Accuracy over {quantity(table.images)} test images.")
        if math.isfinite(best):
            error = math.sqrt(max(best * (1 - best), 0.0) / table.images) * 100
            text.append(
                f"Drawing other images would move it by about ± {error:.2f} points (one standard"
                " error)."
            )
    if chips > 1:
        text.append(
            f"Mean of {chips} chips, ± their standard deviation in points, lowest to highest; costs"
            " are of one chip."
        )
    text.append("“Best” marks the highest accuracy on the chip; “–” does not apply.")
    return " ".join(text + [escape(table.text)] * bool(table.text))


def _bar_chart(chart: BarChart) -> str:
    means = [_mean(bar.accuracy) for bar in chart.bars]
    known = [v for bar in chart.bars for v in bar.accuracy if math.isfinite(v)]
    if not known:
        return (
            f'<figure class="card"><figcaption>{escape(chart.title)}</figcaption><p>No accuracy was'
            " measured.</p></figure>"
        )
    axis, start = _accuracy_axis(min(known), max(known))
    left, right, top, step = 6.0, 344.0, 26.0, 42.0
    drawn = [(bar, mean) for bar, mean in zip(chart.bars, means, strict=True) if not bar.reference]
    floor = top + step * len(drawn) + 4

    def place(values: float) -> float:
        return left + float(axis.place(values)) * (right - left)

    parts = []
    for value in axis.places:
        x = place(value)
        anchor = "start" if x < left + 12 else "end" if x > right - 18 else "middle"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor}"/>')
        parts.append(label(x, floor + 16, axis.text(value), anchor))
    for k, (bar, mean) in enumerate(drawn):
        y = top + k * step
        finite = math.isfinite(mean)
        parts.append(label(left, y + 15, _short(bar.name, 40), "start", "name"))
        parts.append(label(396, y + 32, per_cent(mean, chart.images), "end", "name"))
        if not finite:
            continue
        end = max(place(mean), left + 1)
        parts.append(
            f'<rect class="bar" x="{left}" y="{y + 21:.1f}" width="{end - left:.1f}" height="13"'
            ' rx="1.5"/>'
        )
        if start > 0:
            parts.append(f'<path class="break" d="M{left + 7:.1f} {y + 36:.1f}l4 -17m3 0l-4 17"/>')
        if len(bar.accuracy) > 1:
            dots = [place(v) for v in bar.accuracy if math.isfinite(v)]
            parts += [
                f'<circle class="chip" cx="{x:.1f}" cy="{y + 27.5:.1f}" r="3.2"/>' for x in dots
            ]
    for bar, mean in zip(chart.bars, means, strict=True):
        if bar.reference and math.isfinite(mean):
            x = place(mean)
            parts.append(
                f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{floor}"/>'
            )
            text = f"{_short(bar.name, 30)} {per_cent(mean, chart.images)}"
            parts.append(label(x, top - 11, text, "end" if x > 170 else "start", "goal-text"))
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    alt = f"{chart.title}. " + "; ".join(
        f"{b.name} {per_cent(m, chart.images)}" for b, m in zip(chart.bars, means, strict=True)
    )
    note = (
        f"The axis begins at {axis.text(start)}, not at 0: compare the ends of the bars, not their"
        " lengths."
    )
    note = note if start > 0 else "The axis begins at 0."
    note += (
        " Each dot is one chip; a bar ends at their mean."
        if any(len(b.accuracy) > 1 for b, _ in drawn)
        else ""
    )
    return (
        f'<figure class="card"><figcaption>Accuracy: {escape(chart.title)}</figcaption>'
        f'{drawing(400, floor + 24, alt, parts)}<p class="small">{note}</p></figure>'
    )


def _accuracy_axis(low: float, high: float) -> tuple[Axis, float]:
    """From 0 where a bar is short anyway, else from a round number that leaves the shortest bar a
    visible length.
    """
    if low < 0.5:
        return Axis(0.0, 1.0, "", at=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), per_cent=True), 0.0
    places = ticks(max(low - max(0.35 * (high - low), 0.002), 0.0), min(high, 1.0), 4)
    step = places[1] - places[0] if len(places) > 1 else 0.01
    start = math.floor((low - 0.25 * (high - low)) / step - 1e-9) * step
    start = max(round(start - step if low - start < 0.3 * step else start, 10), 0.0)
    end = min(math.ceil(high / step - 1e-9) * step, 1.0)
    return Axis(start, end, "", at=tuple(ticks(start, end, 4)), per_cent=True), start


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _cost(cost: Cost) -> str:
    clock = "the bench’s virtual clock" if cost.clock == "virtual" else "the wall clock"
    sums = (
        f"Full read-verify-write (R-V-W) of one chip took {duration(cost.verify_s)} on {clock},"
        f" random sparse adaptation (RSA) {duration(cost.adaptation_s)}"
    )
    if math.isfinite(cost.ratio):
        sums += (
            f': a ratio R-V-W : RSA of <strong class="ratio">{quantity(cost.ratio)} : 1</strong>'
        )
    rows = []
    for name, parts, total in (
        ("R-V-W", cost.verify, cost.verify_s),
        ("RSA", cost.adaptation, cost.adaptation_s),
    ):
        for part in parts:
            share = _share(part.seconds / total) if total > 0 else "–"
            each = duration(part.seconds / part.count) if part.count else "–"
            cells = (
                ("count", quantity(part.count)),
                ("each", each),
                ("time", duration(part.seconds)),
                ("share", share),
            )
            data = "".join(
                f'<td role="cell" data-label="{key}"><span>{value}</span></td>'
                for key, value in cells
            )
            rows.append(
                f'<tr role="row"><th role="rowheader" scope="row"><b>{name}</b>'
                f" {escape(part.name)}</th>{data}</tr>"
            )
    heads = ("Part", "Count", "Each", "Time", "Share")
    head = "".join(f'<th role="columnheader" scope="col">{h}</th>' for h in heads)
    used = ""
    if cost.durations:
        listed = "; ".join(f"{escape(name)} {duration(s)}" for name, s in cost.durations)
        used = f'<p class="small">Durations used: {listed}.</p>'
    text = f"<p>{escape(cost.text)}</p>" if cost.text else ""
    return (
        f'<div class="card"><h3>{escape(cost.title)}</h3><p>{sums}.</p>{text}<table role="table"'
        f' class="results"><thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody'
        f' role="rowgroup">{"".join(rows)}</tbody></table>{used}</div>'
    )


def _share(fraction: float) -> str:
    return "under 0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"


def _panel(panel: MapPanel) -> str:
    cells = _Map.of(panel)
    tiles = cells.target_s.shape[0]
    shown = min(tiles, TILES_SHOWN)
    top_s, error_s = _scales(cells)
    pictures = [_tile(panel.title, cells, k, top_s, error_s) for k in range(shown)]
    open_tiles = shown if tiles <= TILES_OPEN else 1
    maps = "".join(pictures[:open_tiles])
    if pictures[open_tiles:]:
        count = len(pictures) - open_tiles
        maps += (
            f"<details><summary>{count} more"
            f" tiles</summary>{''.join(pictures[open_tiles:])}</details>"
        )
    text = f"<p>{escape(panel.text)}</p>" if panel.text else ""
    return (
        f"<section>\n<h2>{escape(panel.title)}</h2>\n{text}"
        f"<p>{_counts(cells)}</p>\n{maps}\n<p"
        f' class="small">{_map_text(cells, shown, top_s, error_s)}</p>\n'
        f"{_errors(panel, cells)}\n</section>"
    )


def _scales(cells: _Map) -> tuple[float, float]:
    """Upper ends (S) of the scale of conductance and of the scale of error."""
    used, good = cells.used, cells.responsive
    top = float(cells.target_s[used].max()) if used.any() else 0.0
    error = 0.0
    if good.any():
        top = max(top, float(np.percentile(cells.programmed_s[good], 99.5)))
        error = float(np.percentile(np.abs(cells.programmed_s - cells.target_s)[good], 99))
    return _round_up(top), _round_up(error)


def _round_up(value: float) -> float:
    if not value > 0:
        return 1e-6
    decade = 10.0 ** math.floor(math.log10(value))
    return float(
        next(
            m * decade
            for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
            if m * decade >= value * (1 - 1e-9)
        )
    )


def _counts(cells: _Map) -> str:
    used = int(cells.used.sum())
    entries = [
        (cells.stuck_low, STUCK_LOW, "stuck at low resistance"),
        (cells.stuck_high, STUCK_HIGH, "stuck at high resistance"),
    ]
    entries.append((cells.unreadable, UNREADABLE, "could not be read"))
    text = [f"{quantity(used)} of {quantity(cells.used.size)} cells are used."]
    marks = []
    for mask, colour, what in entries:
        count = int(mask.sum())
        share = f" ({100 * count / used:.2f} %)" if used else ""
        marks.append(f'<span class="mark">{_swatch(colour)}{quantity(count)}{share} {what}</span>')
    unused = int((~cells.used).sum())
    marks.append(f'<span class="mark">{_swatch(UNUSED)}{quantity(unused)} not used</span>')
    return f'{text[0]}</p><p class="marks">{"".join(marks)}'


def _swatch(colour: tuple[int, int, int]) -> str:
    return f'<i class="swatch" style="background:rgb({colour[0]},{colour[1]},{colour[2]})"></i>'


def _map_text(cells: _Map, shown: int, top_s: float, error_s: float) -> str:
    good = cells.responsive
    tiles, rows, columns = cells.target_s.shape
    block = _block(rows, columns)
    above = int((cells.programmed_s[good] > top_s).sum())
    beyond = int((np.abs(cells.programmed_s - cells.target_s)[good] > error_s).sum())
    text = []
    if block == 1:
        text.append("One pixel is one cell.")
    else:
        text.append(
            f"One pixel is a block of {block} x {block} cells: the mean of its readable cells, or"
            " the colour of a fault where more than half of the block has it. The counts above are"
            " of single cells."
        )
    if shown < tiles:
        text.append(
            f"The first {shown} of {tiles} tiles are drawn; all counts and histograms cover every"
            " tile."
        )
    text.append(
        f"{quantity(above)} responsive cells lie above the conductance scale and {quantity(beyond)}"
        " beyond the error scale; they have its end colour."
    )
    return " ".join(text)


def _block(rows: int, columns: int) -> int:
    return math.ceil(max(rows, columns) / PICTURE_CELLS)


def _blocks(values: FloatArray, block: int) -> FloatArray:
    """Means over blocks of block x block, NaN left out; the blocks at the far edges may be
    smaller.
    """
    if block == 1:
        return values
    rows, columns = (math.ceil(n / block) for n in values.shape)
    padded = np.full((rows * block, columns * block), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    stacked = padded.reshape(rows, block, columns, block)
    count = np.isfinite(stacked).sum(axis=(1, 3))
    return np.where(count > 0, np.nansum(stacked, axis=(1, 3)) / np.maximum(count, 1), np.nan)


def _image(
    values: FloatArray,
    marks: Sequence[tuple[BoolArray, tuple[int, int, int]]],
    paint: Callable[[FloatArray], Rgb],
) -> Rgb:
    """Values (NaN where a mark stands) painted, with the marks in their own colours over them."""
    block = _block(*values.shape)
    means = _blocks(values, block)
    rgb = paint(means)
    for mask, colour in marks:
        share = _blocks(mask.astype(np.float64), block)
        rgb[(share > 0.5) | ((share > 0) & np.isnan(means))] = colour
    return rgb


def _tile(title: str, cells: _Map, tile: int, top_s: float, error_s: float) -> str:
    target, programmed = cells.target_s[tile], cells.programmed_s[tile]
    good = cells.responsive[tile]
    unused = (~cells.used[tile], UNUSED)
    marks = [
        unused,
        (cells.unreadable[tile], UNREADABLE),
        (cells.stuck_high[tile], STUCK_HIGH),
        (cells.stuck_low[tile], STUCK_LOW),
    ]
    conductance = lambda v: sequential(v / top_s)  # noqa: E731
    error = lambda v: diverging(v / error_s)  # noqa: E731
    wide, both = np.linspace(1, 0, 101), np.linspace(1, -1, 101)
    pictures = (
        ("Target", _image(target, [unused], conductance), sequential(wide), (0.0, top_s)),
        (
            "Programmed",
            _image(np.where(good, programmed, np.nan), marks, conductance),
            sequential(wide),
            (0.0, top_s),
        ),
        (
            "Error: programmed − target",
            _image(np.where(good, programmed - target, np.nan), marks, error),
            diverging(both),
            (-error_s, error_s),
        ),
    )
    where = f", tile {tile}" if cells.target_s.shape[0] > 1 else ""
    figures = []
    for name, rgb, scale, ends in pictures:
        alt = (
            f"{title}: map of {name.lower()} conductance{where}, {target.shape[0]} rows by"
            f" {target.shape[1]} columns"
        )
        svg = _map_svg(rgb, scale, ends, target.shape[0], target.shape[1], alt)
        figures.append(f'<figure class="card"><figcaption>{name}{where}</figcaption>{svg}</figure>')
    return f'<div class="three">{"".join(figures)}</div>'


def _map_svg(
    rgb: Rgb, scale: Rgb, ends_s: tuple[float, float], rows: int, columns: int, alt: str
) -> str:
    left, top, width = 44.0, 6.0, 280.0
    height = min(max(width * rows / columns, 110.0), 380.0)
    floor, bar = top + height, left + width + 12
    parts = [
        _picture(rgb, left, top, width, height),
        f'<rect class="frame" x="{left}" y="{top}" width="{width}" height="{height:.1f}"/>',
    ]
    for column in _addresses(columns, 5):
        x = left + (column + 0.5) / columns * width
        parts.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{floor:.1f}" y2="{floor + 4:.1f}"/>'
        )
        parts.append(label(x, floor + 16, str(column), "middle"))
    for row in _addresses(rows, 5 if height > 180 else 2):
        y = top + (row + 0.5) / rows * height
        parts.append(f'<line class="tick" x1="{left - 4}" x2="{left}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(label(left - 7, y + 4, str(row), "end"))
    parts.append(label(left + width / 2, floor + 33, "column", "middle", "label"))
    middle = f'<g transform="translate(11 {top + height / 2:.1f}) rotate(-90)">'
    parts.append(middle + label(0, 0, "row", "middle", "label") + "</g>")
    parts.append(_picture(scale[:, None, :], bar, top, 12, height))
    parts.append(f'<rect class="frame" x="{bar}" y="{top}" width="12" height="{height:.1f}"/>')
    low, high = (end * 1e6 for end in ends_s)
    for value in ticks(low, high, 4):
        y = floor - (value - low) / (high - low) * height
        text = minus(f"{value:+.4g}" if low < 0 and value else f"{value:.4g}")
        parts.append(
            f'<line class="tick" x1="{bar + 12}" x2="{bar + 15}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(label(bar + 18, min(max(y + 4, top + 9), floor), text))
    parts.append(label(bar + 6, floor + 16, "uS", "middle", "label"))
    return drawing(400, floor + 40, alt, parts)


def _picture(rgb: Rgb, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height:.1f}" preserveAspectRatio="none" '
        f'href="{data_uri(rgb)}"/>'
    )


def _addresses(count: int, wanted: int) -> list[int]:
    """Round row or column numbers (from 0) to write at an axis."""
    return sorted({int(v) for v in ticks(0, max(count - 1, 1), wanted) if v < count})


def _errors(panel: MapPanel, cells: _Map) -> str:
    error = programming_error(panel)
    if error.size < 2:
        return (
            "<p>Too few responsive cells above the lowest level for statistics of the programming"
            " error.</p>"
        )
    mean, sigma = float(error.mean()), float(error.std())
    worst = float(np.abs(error).max())
    words = (
        "Programming error, G<sub>programmed</sub> / G<sub>target</sub> − 1, of the responsive"
        f" cells with a target above the lowest: mean <strong>{_beside(mean, sigma)}</strong>,"
        f" sigma <strong>{quantity(sigma)}</strong>, N = <strong>{quantity(error.size)}</strong>;"
        f" half of the cells within ± {quantity(float(np.median(np.abs(error))))}, the worst off by"
        f" {quantity(worst)}."
    )
    if sigma < 1e-9 * (
        1 + abs(mean)
    ):  # one error for all, but for rounding: there is no distribution to draw
        return f"<p>{words}</p>"
    figures = (_histogram(error, mean, sigma), _tail(error, mean, sigma), _by_level(cells))
    return f'<p>{words}</p>\n<div class="three">{"".join(figures)}</div>'


def _beside(mean: float, sigma: float) -> str:
    """A mean with as many decimals as its sigma has, printed to 3 digits."""
    if sigma <= 0:
        return quantity(mean)
    return minus(f"{mean:.{max(2 - math.floor(math.log10(sigma)), 0)}f}")


def _histogram(error: FloatArray, mean: float, sigma: float) -> str:
    reach = 4.5 * sigma
    low, high = (
        max(mean - reach, min(float(error.min()), mean - sigma)),
        min(mean + reach, max(float(error.max()), mean + sigma)),
    )
    counts, edges = np.histogram(
        error, bins=int(np.clip(math.sqrt(error.size), 12, 60)), range=(low, high)
    )
    width = float(edges[1] - edges[0])
    outside = int(error.size - counts.sum())
    x = np.linspace(low, high, 121)
    normal = (
        error.size
        * width
        / (sigma * math.sqrt(2 * math.pi))
        * np.exp(-0.5 * ((x - mean) / sigma) ** 2)
    )
    top = 1.06 * max(float(counts.max()), float(normal.max()))
    plot = Plot(
        Axis(low, high, "G programmed / G target − 1", at=tuple(ticks(low, high, 6))),
        Axis(0.0, top, "cells in a bin"),
    )
    alt = (
        f"Histogram of the programming error: mean {quantity(mean)}, sigma {quantity(sigma)},"
        f" {error.size} cells"
    )
    inside = [plot.bars(edges, counts, "heap"), plot.line(x, normal, "goal")]
    note = f"Bins of {quantity(width, 2)}. Line: the normal curve of the same mean and sigma. "
    note += (
        f"{quantity(outside)} cells lie beyond the axis."
        if outside
        else "No cell lies beyond the axis."
    )
    return _figure("Histogram of the error", plot.svg(alt, inside), note)


def _tail(error: FloatArray, mean: float, sigma: float) -> str:
    size = np.sort(np.abs(error))
    n = size.size
    # Every cell of the far tail, the crowd before it thinned evenly: the line is the same to the
    # eye.
    at = np.unique(
        np.concatenate([np.linspace(0, n - 1, min(n, 200)), np.arange(max(n - 200, 0), n)]).astype(
            np.int64
        )
    )
    share = 1.0 - at / n
    lowest = 10.0 ** math.floor(math.log10(1.0 / n))
    high = max(float(size[-1]), 4 * sigma) * 1.02
    x = np.linspace(0, high, 200)
    root = sigma * math.sqrt(2)
    normal = np.array(
        [0.5 * math.erfc((v - mean) / root) + 0.5 * math.erfc((v + mean) / root) for v in x]
    )
    above = normal >= lowest
    plot = Plot(Axis(0.0, high, "x"), Axis(lowest, 1.0, "cells with |error| ≥ x", log=True))
    inside = [plot.line(x[above], normal[above], "goal"), plot.line(size[at], share, "curve")]
    alt = (
        "Share of cells whose error is at least x, on a logarithmic scale; largest error"
        f" {quantity(float(size[-1]))}"
    )
    return _figure(
        "Tails of the error",
        plot.svg(alt, inside),
        "Solid: measured cells, to the very last. Dashed: the normal curve.",
    )


def _by_level(cells: _Map) -> str:
    target = cells.target_s[cells.counted] * 1e6
    error = cells.programmed_s[cells.counted] * 1e6 / target - 1.0
    levels, group = np.unique(np.round(target, 6), return_inverse=True)
    binned = levels.size > 32
    if binned:
        edges = np.quantile(target, np.linspace(0, 1, 17))
        group = np.clip(np.searchsorted(edges, target, side="right") - 1, 0, 15)
        levels = np.array(
            [target[group == k].mean() if (group == k).any() else np.nan for k in range(16)]
        )
    count = np.bincount(group, minlength=levels.size)
    keep = count > 0
    divisor = np.maximum(count, 1)
    mean = np.bincount(group, error, minlength=levels.size) / divisor
    square = np.bincount(group, (error - mean[group]) ** 2, minlength=levels.size) / divisor
    levels, mean, sigma = levels[keep], mean[keep], np.sqrt(square[keep])
    low, high = float((mean - sigma).min()), float((mean + sigma).max())
    low, high = (
        min(low, 0.0) - 0.08 * (high - low + 1e-9),
        max(high, 0.0) + 0.08 * (high - low + 1e-9),
    )
    plot = Plot(
        Axis(0.0, float(levels.max()) * 1.05, "target, uS"), Axis(low, high, "error: mean ± sigma")
    )
    x, middle = plot.at_x(levels), plot.at_y(mean)
    below, above = plot.at_y(mean - sigma), plot.at_y(mean + sigma)
    inside = [plot.line([0.0, levels.max() * 1.05], [0.0, 0.0], "goal")]
    for k in range(len(levels)):
        inside.append(
            f'<line class="curve" x1="{x[k]:.1f}" x2="{x[k]:.1f}" y1="{below[k]:.1f}"'
            f' y2="{above[k]:.1f}"/>'
        )
        inside.append(f'<circle class="dot" cx="{x[k]:.1f}" cy="{middle[k]:.1f}" r="3.4"/>')
    what = (
        "Targets in 16 groups of equal size."
        if binned
        else f"{len(levels)} target levels above the lowest."
    )
    alt = f"Mean and sigma of the programming error by target conductance, {len(levels)} points"
    return _figure(
        "Error by target", plot.svg(alt, inside), f"{what} Dot: mean; line: ± one sigma."
    )


def _figure(title: str, svg: str, note: str) -> str:
    return (
        f'<figure class="card"><figcaption>{title}</figcaption>{svg}<p'
        f' class="small">{note}</p></figure>'
    )


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""

_STYLE = """:root {
  --page: #f6f6f4; --card: #ffffff; --ink: #1b2026; --soft: #59626d; --line: #dfe2e6; --blue: #3c6bc5; --blue-ink: #2855ae;
  --goal: #b84a0e; --tint: #e9effb;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #121519; --card: #1b1f25; --ink: #e9ebee; --soft: #a6afba; --line: #343a43; --blue: #6e98e6; --blue-ink: #a9c4f5;
    --goal: #f2a266; --tint: #24324d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem clamp(0.9rem, 3vw, 2.5rem) 3rem; max-width: 84rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%;
}
h1 { font-size: clamp(1.5rem, 4vw, 2.2rem); line-height: 1.2; margin: 0 0 0.6rem; letter-spacing: -0.01em; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 0.7rem; }
h3 { font-size: 1.02rem; margin: 0 0 0.4rem; }
p { margin: 0 0 0.8rem; max-width: 62rem; }
header p { color: var(--soft); }
header strong { color: var(--ink); font-weight: 600; }
.small, small { font-size: 0.83rem; line-height: 1.45; color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.1rem; margin: 0; min-width: 0;
  overflow-x: auto;
}
.card > :last-child { margin-bottom: 0; }
.card + .card { margin-top: 1rem; }
.pair, .three { display: grid; gap: 1rem; margin-bottom: 1rem; align-items: start; }
.pair > *, .three > * { margin: 0 !important; }
.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.figures dd { text-wrap: balance; }
@media (min-width: 62rem) { .pair { grid-template-columns: minmax(0, 5fr) minmax(0, 3fr); } }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5rem), 1fr)); gap: 0.8rem; margin: 1.2rem 0 0;
}
.figures div { border-left: 3px solid var(--blue); padding: 0.1rem 0 0.1rem 0.8rem; }
.figures dt { font-size: 0.83rem; color: var(--soft); line-height: 1.35; }
.figures dd { margin: 0.1rem 0 0; font-size: 1.55rem; font-weight: 650; line-height: 1.2; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin-bottom: 0.8rem; }
caption, figcaption { text-align: left; font-weight: 600; padding-bottom: 0.5rem; }
th, td { padding: 0.5rem 0.6rem; border-top: 1px solid var(--line); text-align: right; vertical-align: top; }
thead th { border-top: 0; font-size: 0.83rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 500; }
td:last-child, thead th:last-child { padding-right: 0; }
td > span { white-space: nowrap; }
td small { display: block; }
.wins th, .wins td:nth-child(2) { font-weight: 700; }
.wins td small { font-weight: 400; }
.reference { color: var(--soft); }
.best {
  font-size: 0.75rem; font-weight: 600; background: var(--tint); color: var(--blue-ink); border-radius: 4px;
  padding: 0.08rem 0.4rem;
}
.ratio { font-size: 1.15em; }
.marks { max-width: none; display: flex; flex-wrap: wrap; gap: 0.1rem 1.4rem; }
.swatch {
  display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 2px; vertical-align: -0.06em;
  -webkit-print-color-adjust: exact; print-color-adjust: exact;
}
summary { cursor: pointer; color: var(--blue-ink); padding: 0.3rem 0; margin-bottom: 0.6rem; }
.notes ul { padding-left: 1.2rem; max-width: 62rem; }
svg { display: block; width: 100%; max-width: 36rem; height: auto; margin-bottom: 0.4rem; }
svg text { font-size: 12px; fill: var(--soft); }
svg .label { fill: var(--ink); }
svg .name { fill: var(--ink); font-size: 13px; }
svg image { image-rendering: pixelated; }
svg .grid { stroke: var(--line); }
svg .tick, svg .axis, svg .frame { stroke: var(--soft); fill: none; }
svg .bar { fill: var(--blue); }
svg .heap { fill: var(--blue); fill-opacity: 0.4; stroke: var(--blue); }
svg .break { stroke: var(--card); stroke-width: 2; fill: none; }
svg .chip { fill: var(--card); stroke: var(--ink); stroke-width: 1.4; }
svg .dot { fill: var(--blue); }
svg .curve { fill: none; stroke: var(--blue); stroke-width: 2; stroke-linejoin: round; }
svg .goal { fill: none; stroke: var(--goal); stroke-width: 2; stroke-dasharray: 5 4; }
svg .goal-text { fill: var(--goal); font-weight: 600; }
svg .band { fill: var(--blue); fill-opacity: 0.18; stroke: none; }
svg .thin { stroke-width: 1; stroke-opacity: 0.5; }
svg .key { font-weight: 600; }
svg .curve.hue1 { stroke: #d0690f; } svg .band.hue1, svg .dot.hue1, svg .key.hue1 { fill: #d0690f; }
svg .curve.hue2 { stroke: #2e8b57; } svg .band.hue2, svg .dot.hue2, svg .key.hue2 { fill: #2e8b57; }
svg .curve.hue3 { stroke: #8a5fc0; } svg .band.hue3, svg .dot.hue3, svg .key.hue3 { fill: #8a5fc0; }
svg .curve.hue4 { stroke: #b0413e; } svg .band.hue4, svg .dot.hue4, svg .key.hue4 { fill: #b0413e; }
svg .curve.hue5 { stroke: #7a8288; } svg .band.hue5, svg .dot.hue5, svg .key.hue5 { fill: #7a8288; }
@media screen and (max-width: 40rem) {
  .card { padding: 0.8rem 0.8rem; }
  .results, .results caption, .results tbody, .results tr, .results th, .results td { display: block; text-align: left; }
  .results thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .results tr {
    display: grid; grid-template-columns: 1fr 1fr; column-gap: 1.6rem; border-top: 1px solid var(--line); padding: 0.5rem 0;
  }
  .results th, .results td:nth-child(2):nth-last-child(5) { grid-column: 1 / -1; }
  .results th, .results td { border: 0; padding: 0.08rem 0; }
  .results td { display: flex; justify-content: space-between; gap: 0.5rem; }
  .results td > span { text-align: right; white-space: normal; }
  .results td::before {
    content: attr(data-label); font-size: 0.83rem; padding-top: 0.1rem; color: var(--soft); font-weight: 400; flex: none;
  }
}
@media print {
  :root { --page: #ffffff; }
  body { padding: 0; font-size: 10pt; }
  .card { break-inside: avoid; overflow: visible; }
  h2, h3 { break-after: avoid; }
  .three { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  svg { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
