"""Notebooks that are kept as text (Python with `# %%` between cells, as Jupytext and editors know
it), run, and written as pages with what they print and draw. Jupyter is not needed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One cell after it ran: Markdown, or code with what it printed and the SVG pictures that it
    drew.
    """

    source: str
    is_code: bool
    printed: str = ""
    pictures: tuple[bytes, ...] = ()


def run_notebook(path: Path) -> list[Cell]:
    """Run a notebook from top to bottom in an empty folder. What a cell raises is raised here."""
    marked = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    scope: dict[str, Any] = {"__name__": "__main__"}
    cells = []
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        for kind, source in zip(marked[1::2], marked[2::2], strict=True):
            text = source.strip("\n")
            if "markdown" in kind:
                cells.append(Cell(re.sub(r"^# ?", "", text, flags=re.MULTILINE), is_code=False))
            else:
                cells.append(_run(text, scope, path.name))
    return cells


@contextlib.contextmanager
def _inside(folder: Path) -> Any:
    """As `contextlib.chdir`; and pictures go to memory, not to a screen."""
    import matplotlib

    backend, before = matplotlib.get_backend(), Path.cwd()
    matplotlib.use("svg")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        matplotlib.use(backend)


def _run(source: str, scope: dict[str, Any], name: str) -> Cell:
    """Run one cell; the value of its last expression is printed, as Jupyter does."""
    tree = ast.parse(source, name)
    last = tree.body[-1] if tree.body else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), scope)
            value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
            if value is not None:
                print(repr(value))
        else:
            exec(compile(tree, name, "exec"), scope)
    return Cell(source, True, printed.getvalue(), _pictures())


def _pictures() -> tuple[bytes, ...]:
    """The figures that are open, as SVG; they are closed."""
    from matplotlib import pyplot

    drawn = []
    for number in pyplot.get_fignums():
        held = io.BytesIO()
        # Without a date and with a fixed salt the same figure gives the same file.
        with pyplot.rc_context({"svg.hashsalt": "rram_hil"}):
            pyplot.figure(number).savefig(held, format="svg", metadata={"Date": None})
        drawn.append(held.getvalue())
    pyplot.close("all")
    return tuple(drawn)


def page_of(cells: list[Cell], name: str) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, and its pictures by the file names that the page gives them."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in cells:
        parts.append(f"```python\n{cell.source}\n```" if cell.is_code else cell.source)
        if cell.printed:
            parts.append(f"```text\n{cell.printed.rstrip()}\n```")
        for picture in cell.pictures:
            file = f"{name}-{len(pictures) + 1}.svg"
            pictures[file] = picture
            parts.append(f"![What the cell above draws]({file})")
    return "\n\n".join(parts), pictures
