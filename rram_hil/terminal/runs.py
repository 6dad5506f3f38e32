"""What `rram-hil runs` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rram_hil.catalogue.catalog import COLUMNS, Catalog, in_line, short_ids, words
from rram_hil.catalogue.entry import DAMAGED, CatalogEntry
from rram_hil.errors import near
from rram_hil.terminal.console import Output
from rram_hil.units import count


def show_runs(
    catalog: Catalog, found: Sequence[CatalogEntry], asked: Mapping[str, str], output: Output
) -> None:
    """Print a table of runs; below it the notes given to them, what is damaged and what could not
    be read. `asked` are the chip, protocol and tag that they were searched by, by these names.
    """
    everything = catalog.search(everything=True)
    ids = short_ids(everything)
    if found:
        output.table(COLUMNS, [words(entry, ids) for entry in found])
    else:
        of = len(everything)
        meant = _meant(asked, everything) or "."
        output.line(f"No run fits, of {count(of)}{meant}" if of else "There is no run file.")
    notes = {e.run_id: e.note for e in found if e.note}
    if notes:
        output.heading("Notes")
        for run, note in notes.items():
            output.line(f"{ids[run]}  {' '.join(note.split())}", indent=2)
    damaged = [e for e in found if e.status == DAMAGED]
    if damaged:
        output.heading("Damaged")
        for entry in damaged:
            output.line(in_line(f"{entry.path}: {entry.reason}"), indent=2)
    if catalog.unreadable:
        output.heading("Not read")
        for line in catalog.unreadable:
            output.line(in_line(line), indent=2)


def _meant(asked: Mapping[str, str], runs: Sequence[CatalogEntry]) -> str:
    """What was probably meant by a name that no run has."""
    known = {
        "chip": {e.chip_id for e in runs},
        "protocol": {name for e in runs for name in (*e.protocols, *e.steps)},
        "tag": {tag for e in runs for tag in e.tags},
    }
    return "".join(near(name, known[key]) for key, name in asked.items() if name not in known[key])


def show_labels(entry: CatalogEntry, output: Output) -> None:
    """Print what was said of a run."""
    output.heading(entry.run_id, in_line(f"{entry.title} on {entry.chip_id}"))
    output.facts(
        [
            ("tags", ", ".join(entry.tags) or "none"),
            ("note", " ".join(entry.note.split())),
            ("excluded", "yes: listed only with --all" if entry.excluded else ""),
        ]
    )
