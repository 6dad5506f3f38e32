"""The examples of a documentation page, run as its reader would: in one empty folder, from top to
bottom. By hand, or in CI against an installed wheel: python tests/helpers/pages.py PAGE...

Blocks are told by what stands behind the fence:

    ```toml title="bench.toml"    a file (of any language) of that name
    ```console                    lines after "$ " are commands, what follows is what they print;
                                  one that ends in "&" goes on until the page ends
    ```sh                         commands, whatever they print
    ```python                     a script; a ```text block behind it is what it prints

In what is printed, "..." stands for anything within a line, and alone on a line for any lines. A
comment `<!-- example: hardware -->` before a block (or another word of `REASONS`) says why it is
not run; `<!-- example: torch -->` that it needs torch.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REASONS = ("hardware", "hours", "install")
"""Marks of blocks that no test runs: they need an instrument, take hours, or install packages,
which `.ci/run` does in its own way.
"""
MARKS = (*REASONS, "torch")
_BLOCK = re.compile(
    r"^(?:<!-- example: (?P<mark>\w+) -->\n+)?"
    r"```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: `title` is the file that it is, `mark` what the comment before it says."""

    language: str
    title: str
    mark: str
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for block in _BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', block["info"])
        line = text.count("\n", 0, block.start("language")) + 1
        found.append(
            Block(
                block["language"],
                title[1] if title else "",
                block["mark"] or "",
                block["code"],
                line,
            )
        )
    return found


def commands_of(code: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what stands below it."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def fits(expected: str, printed: str) -> bool:
    """Whether what was printed is what was expected, "..." standing for anything."""
    pattern = ""
    for line in expected.rstrip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += re.escape(line.rstrip()).replace(r"\.\.\.", r"[^\n]*?") + "\n"
    return re.fullmatch(pattern, _plain(printed)) is not None


def _plain(printed: str) -> str:
    """Without spaces at the ends of lines and empty lines at the end."""
    return "\n".join(line.rstrip() for line in printed.splitlines()).rstrip() + "\n"


class Reader:
    """Does what pages say, in `folder`, with the interpreter that runs this and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._background: list[subprocess.Popen[str]] = []
        bin_folder = str(Path(sys.executable).parent)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))},
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
            "COLUMNS": "100",
            "RRAM_HIL_LEDGERS": str(folder / ".ledgers"),
            "RRAM_HIL_CATALOGUE": str(folder / ".catalogue"),
        }

    def read(self, page: Path, *, skipped: tuple[str, ...] = REASONS) -> int:
        """Run a page's blocks but those with a mark in `skipped`: how many ran. Raises
        `AssertionError` naming page and line.
        """
        ran = 0
        blocks = blocks_of(page.read_text(encoding="utf-8"))
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            if block.mark in skipped:
                continue
            where = f"{page.name}, line {block.line}"
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.code, encoding="utf-8")
            elif block.language == "console":
                for command, expected in commands_of(block.code):
                    self._command(command, expected, f"{where}: {command}")
            elif block.language == "sh":
                self._runs(["bash", "-ec", block.code], "", where)
            elif block.language == "python":
                is_told = after is not None and after.language == "text"
                expected = after.code if after is not None and is_told else ""
                self._runs([sys.executable, "-P", "-c", block.code], expected, where)
            else:
                continue
            ran += 1
        return ran

    def close(self) -> None:
        """End what pages left running."""
        for process in self._background:
            process.terminate()
            process.communicate()

    def _command(self, command: str, expected: str, where: str) -> None:
        if not command.endswith(" &"):
            self._runs(["bash", "-c", command], expected, where)
            return
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command.removesuffix(' &')}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._background.append(process)
        assert process.stdout is not None
        printed = "".join(process.stdout.readline() for _ in expected.rstrip().splitlines())
        assert fits(expected, printed), f"{where}: prints {printed!r}"

    def _runs(self, command: list[str], expected: str, where: str) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{where}: exit status {done.returncode}\n{done.stdout}"
        if expected.strip() and not fits(expected, done.stdout):
            lines = difflib.ndiff(expected.splitlines(), _plain(done.stdout).splitlines())
            raise AssertionError(f"{where}: prints something else\n" + "\n".join(lines))


def main(pages: list[str]) -> None:
    """Run pages, each in an empty folder of its own, and say how long each took."""
    for page in pages:
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.closing(Reader(Path(folder))) as reader,
        ):
            ran = reader.read(Path(page))
        print(f"{page}: {ran} blocks in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
