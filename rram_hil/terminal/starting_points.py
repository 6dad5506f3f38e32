"""Starting points for files of one's own: benches and recipes after the examples, packages with a
plug-in after the pages of the documentation that build one.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import rram_hil
from rram_hil.errors import ConfigError, DataError, near
from rram_hil.plugins import names
from rram_hil.storage.safe_files import remove

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_FILE = re.compile(r"^### `([\w.]+)`\n(?:(?!^###).)*?^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


_COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Page:
    """A page that holds a whole package, and what it calls its plug-in: as a module. The class is
    that in capitals, the plug-in's name with hyphens.
    """

    file: str
    module: str


PAGES: Mapping[str, _Page] = {
    "protocol": _Page("adding-a-protocol.md", "cell_window"),
    "calibration": _Page("adding-a-calibration.md", "bond_wires"),
    "instrument": _Page("adding-a-driver.md", "acme_100"),
    "driver": _Page("adding-a-board.md", "lab_box"),
}
EXAMPLES: Mapping[str, str] = {"bench": "simulated", "recipe": "program"}
"""Kinds that begin as an example, `KIND-LIKE.toml`, and which one by default."""
KINDS = (*EXAMPLES, *PAGES)


@dataclass(frozen=True)
class StartingPoint:
    """Files by their names, to be written into `folder`, and the commands to begin with."""

    folder: Path
    files: Mapping[str, bytes]
    commands: tuple[str, ...]

    def write(self) -> list[Path]:
        """Write all files; returns their paths. Raises `ConfigError` where one exists, `DataError`
        where the disk refuses.
        """
        paths = [self.folder / name for name in self.files]
        for path in paths:
            if path.exists():
                raise ConfigError(f"{path} exists; give another name, or --out for another folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, content in zip(paths, self.files.values(), strict=True):
                path.write_bytes(content)
        except OSError as error:
            for path in paths:
                remove(path)
            raise DataError(f"{self.folder}: cannot be written: {error.strerror}") from None
        return paths


def starting_point(kind: str, name: str, like: str = "", out: Path | None = None) -> StartingPoint:
    """The starting point of a `kind` of thing under a name of its own. A bench or a recipe begins
    as the example `like`. Raises `ConfigError` naming what is allowed.
    """
    if kind not in KINDS:
        raise ConfigError(f"new: {kind!r} is none of {', '.join(KINDS)}{near(kind, KINDS)}")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"new {kind}: {name!r}: a name is up to 40 letters, digits, - and _, a letter first"
        )
    if kind in EXAMPLES:
        return _of_example(kind, name, like or EXAMPLES[kind], out or Path())
    if like:
        raise ConfigError(f"new {kind}: --like goes with {' and '.join(EXAMPLES)}")
    return _of_page(kind, name, out)


def _of_example(kind: str, name: str, like: str, out: Path) -> StartingPoint:
    folder = _folder("examples")
    known = sorted(p.stem.removeprefix(f"{kind}-") for p in folder.glob(f"{kind}-*.toml"))
    if like not in known:
        raise ConfigError(
            f"new {kind}: --like {like!r}: there is {', '.join(known)}{near(like, known)}"
        )
    text = (folder / f"{kind}-{like}.toml").read_text(encoding="utf-8")
    if kind == "bench":
        (chip,) = re.findall(r'^id = "([^"]+)"', text, re.MULTILINE)
        text = text.replace(chip, name)
    text = text.replace(f"{kind}-{like}.toml", f"{name}.toml").replace("examples/", "")
    bench = _bench_in(out)
    text = re.sub(r"bench-[\w-]+\.toml", lambda _: bench, text)
    text = re.sub(r"^(.*) run +recipe-([\w-]+)\.toml", _with_a_recipe, text, flags=re.MULTILINE)
    companions = {}
    for other in sorted(set(re.findall(r'"([\w.-]+)"', text))):
        if (folder / other).is_file():
            content, there = (folder / other).read_bytes(), out / other
            if there.is_file() and there.read_bytes() == content:
                continue
            own = f"{name}-{other}" if there.exists() else other
            text = re.sub(rf"(?<![\w.-]){re.escape(other)}", own, text)
            companions[own] = content
    files = {f"{name}.toml": text.encode()} | companions
    told = re.findall(r"^#   (rram-hil (?:check|new|plan|run) .*)$", text, re.MULTILINE)
    return StartingPoint(out, files, tuple(told))


def _bench_in(folder: Path) -> str:
    """The one bench file of a folder, else what stands for one."""
    benches = [
        path.name
        for path in sorted(folder.glob("*.toml"))
        if path.is_file()
        and {"[chip]", "[driver]"} <= set(path.read_text(errors="replace").split())
    ]
    return benches[0] if len(benches) == 1 else "YOUR-BENCH.toml"


def _with_a_recipe(run: re.Match[str]) -> str:
    """A command that runs an example's recipe, after the one that makes it."""
    like = "" if run[2] == EXAMPLES["recipe"] else f" --like {run[2]}"
    return f"{run[1]} new recipe first{like}\n{run[1]} run first.toml"


def _of_page(kind: str, name: str, out: Path | None) -> StartingPoint:
    page, module = PAGES[kind], name.lower().replace("-", "_")
    if keyword.iskeyword(module):
        raise ConfigError(f"new {kind}: {name!r} is a word of Python")
    group = "rram_hil.calibration" if kind == "calibration" else f"rram_hil.{kind}s"
    if importlib.util.find_spec(module) is not None or name in names(group):
        raise ConfigError(
            f"new {kind}: {name!r} is installed already, as a module or a {kind}; give another name"
        )
    text = (_folder("docs") / page.file).read_text(encoding="utf-8")
    files = {
        _renamed(file, page.module, module): _renamed(content, page.module, module).encode()
        for file, content in files_of_page(text).items()
    }
    # The last commands of a page try what it tells how to write.
    told = _renamed(_COMMANDS.findall(text)[-1], page.module, module)
    commands = re.findall(r"^(?:rram-hil|python) [^\n#]*[^\s#]", told, re.MULTILINE)
    return StartingPoint(out or Path(module), files, ("pip install -e .", "pytest", *commands))


def files_of_page(text: str) -> dict[str, str]:
    """The files that a page shows whole: code blocks below headings of their names."""
    return dict(_FILE.findall(text))


def _renamed(text: str, old: str, new: str) -> str:
    """With a page's plug-in under another name, in each of its spellings."""
    for spelling in (str, _camel, _hyphened):
        text = text.replace(spelling(old), spelling(new))
    return text


def _camel(module: str) -> str:
    return "".join(part.capitalize() for part in module.split("_"))


def _hyphened(module: str) -> str:
    return module.replace("_", "-")


def _folder(name: str) -> Path:
    """A folder that a wheel has inside the package, and a checkout beside it."""
    inside = Path(rram_hil.__file__).parent / name
    return inside if inside.is_dir() else inside.parents[1] / name
