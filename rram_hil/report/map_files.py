"""One map of a run as a picture file."""

from __future__ import annotations

from pathlib import Path

from rram_hil.errors import ConfigError, DataError
from rram_hil.report.drawing import CARD
from rram_hil.report.run_maps import drawn_map, scale_of
from rram_hil.storage.export import export_map_csv, refuse_existing
from rram_hil.storage.run_reader import RunFile
from rram_hil.storage.safe_files import remove, replace

PICTURES = (".png", ".svg")
SUFFIXES = (*PICTURES, ".csv")
"""What a map can be written as, told by the end of the file's name."""


def export_map(
    run: RunFile,
    name: str,
    path: Path,
    *,
    save: int | None = None,
    tile: int = 0,
    force: bool = False,
) -> Path:
    """Write one save of a map (counted from 1; default: the last) as CSV, all tiles, or as PNG or
    SVG, one tile, by the end of the path's name.

    Raises `ConfigError` for another name, a save or tile that there is not, a file that exists
    where `force` is False, and where the extra `view` is missing; `DataError` for no such map and
    where it cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ConfigError(f"{path}: a map is written as {', '.join(SUFFIXES)}")
    if kind == ".csv":
        return export_map_csv(run, name, path, save=save, force=force)
    refuse_existing([path], force)
    stack = run.map(name)
    values = stack.values[stack.place(save)]
    if not 0 <= tile < len(values):
        raise ConfigError(f"tile {tile}: must lie in 0..{len(values) - 1}", key="tile", value=tile)
    part = path.with_name(path.name + ".part")
    with drawn_map(values[tile], stack.units, scale_of(values)) as axes:
        figure = axes.get_figure()
        assert figure is not None
        try:
            figure.savefig(part, format=kind[1:], dpi=200, facecolor=CARD)  # type: ignore[union-attr]
        except OSError as error:
            remove(part)
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    replace(part, path)
    return path
