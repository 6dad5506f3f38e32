"""Looks for what this code base does without: decisions by the text of an error, casts of what a
protocol was answered, and a second function called `quantity`.

`python tests/checks/no_message_decisions.py [ROOT]` prints file, line and reason of each place, and
exits with 1 where there is one. The conformance checks in drivers/simulated/conformance are
exempt: they look at what a driver tells its user.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRODUCT = ("rram_hil", "drivers", "protocols", "calibration")
EXEMPT = Path("drivers", "simulated", "conformance")

CUTS = {
    *("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "split", "rsplit"),
    *("splitlines", "partition", "rpartition", "removeprefix", "removesuffix", "strip", "lstrip"),
    *("rstrip", "replace", "isdigit"),
}
"""Methods of a text that compare, search or take it apart."""
SEARCHES = {"search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn"}
"""Functions of `re`."""
TEXTS = {"str", "repr"}
ERROR_ENDINGS = ("Error", "Exception")


@dataclass(frozen=True, order=True)
class Finding:
    """One place: its file, its line and what is wrong there."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def findings_of(source: str, path: str = "<source>") -> list[Finding]:
    """What one file does that it should not; `quantity` is counted over all files, by `check`."""
    tree = ast.parse(source)
    found = [
        Finding(path, node.lineno, "cast( on a yielded result; let the request say its type")
        for node in ast.walk(tree)
        if _is_cast_of_a_yield(node)
    ]
    # Each function, and the module, with the names that are errors and texts of errors in it.
    for scope in (
        tree,
        *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)),
    ):
        found += [
            Finding(path, node.lineno, "decides by the text of an error; give the error attributes")
            for node in _Scope(scope).decisions()
        ]
    return sorted(set(found))


def quantities(source: str) -> list[int]:
    """Lines of the functions called `quantity`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == "quantity"
    ]


def check(root: Path) -> list[Finding]:
    """Everything found in the product's folders under `root`."""
    found, units = [], []
    for folder in PRODUCT:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root)
            if path.is_relative_to(EXEMPT):
                continue
            source = file.read_text(encoding="utf-8")
            found += findings_of(source, str(path))
            units += [
                Finding(str(path), n, "one of several functions `quantity`")
                for n in quantities(source)
            ]
    return sorted(found + (units if len(units) > 1 else []))


def _is_cast_of_a_yield(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and _name(node.func) == "cast"
        and any(isinstance(a, ast.Yield | ast.YieldFrom) for a in node.args)
    )


def _name(node: ast.AST) -> str:
    """The last word of a dotted name; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class _Scope:
    """One function (or the module) without the functions in it: which names are errors, and which
    hold the text of one.
    """

    def __init__(self, scope: ast.AST) -> None:
        self._nodes = list(_inside(scope))
        self._errors = {n.name for n in self._nodes if isinstance(n, ast.ExceptHandler) and n.name}
        arguments = getattr(scope, "args", None)
        if isinstance(arguments, ast.arguments):
            given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            self._errors |= {a.arg for a in given if _names_an_error(a.annotation)}
        self._texts: set[str] = set()
        before = -1
        while len(self._texts) + len(self._errors) > before:
            before = len(self._texts) + len(self._errors)
            for node in self._nodes:
                self._follow(node)

    def decisions(self) -> Iterator[ast.expr]:
        """Where the text of an error is compared, searched or taken apart."""
        for node in self._nodes:
            if isinstance(node, ast.Compare):
                if any(self._is_text(side) for side in (node.left, *node.comparators)):
                    yield node
            elif isinstance(node, ast.Call):
                if self._is_cut(node) or self._is_search(node):
                    yield node
            elif isinstance(node, ast.Subscript) and self._is_text(node.value):
                yield node

    def _follow(self, node: ast.AST) -> None:
        """A name that is given an error, or the text of one, is one too."""
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            return
        names = {t.id for t in targets if isinstance(t, ast.Name)}
        if isinstance(value, ast.Name) and value.id in self._errors:
            self._errors |= names
        elif self._is_text(value):
            self._texts |= names

    def _is_cut(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Attribute) and (
            call.func.attr in CUTS and self._is_text(call.func.value)
        )

    def _is_search(self, call: ast.Call) -> bool:
        return _name(call.func) in SEARCHES and any(self._is_text(a) for a in call.args)

    def _is_text(self, node: ast.AST) -> bool:
        """Whether an expression is the text of an error, whole or among other words."""
        if isinstance(node, ast.Name):
            return node.id in self._texts
        if isinstance(node, ast.Attribute):
            return node.attr in ("args", "message") and self._is_error(node.value)
        if isinstance(node, ast.Subscript):
            return self._is_text(node.value)
        if isinstance(node, ast.Call):
            return self._is_text_call(node)
        if isinstance(node, ast.JoinedStr):
            values = (v.value for v in node.values if isinstance(v, ast.FormattedValue))
            return any(self._is_error(v) or self._is_text(v) for v in values)
        parts: list[ast.expr] = []
        if isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.IfExp):
            parts = [node.body, node.orelse]
        elif isinstance(node, ast.BinOp):
            parts = [node.left, node.right]
        elif isinstance(node, ast.NamedExpr):
            parts = [node.value]
        return any(self._is_text(part) for part in parts)

    def _is_text_call(self, call: ast.Call) -> bool:
        if _name(call.func) in TEXTS:
            return any(self._is_error(a) or self._is_text(a) for a in call.args)
        # lower(), casefold(), encode() and the like of a text are that text still.
        return isinstance(call.func, ast.Attribute) and self._is_text(call.func.value)

    def _is_error(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self._errors


def _inside(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, those of functions in it left out."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _inside(child)


def _names_an_error(annotation: ast.expr | None) -> bool:
    """Whether an annotation names an exception, on its own or in a union."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    return any(_name(n).endswith(ERROR_ENDINGS) for n in ast.walk(annotation))


def main() -> int:
    """Print what is found; 1 where there is anything."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = check(root)
    print("\n".join(map(str, found)) or "No decision hangs on the text of an error.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
