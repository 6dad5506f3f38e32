"""What mkdocs calls while it builds the site: adds pages made from the code, runs the notebooks,
and turns links into the repository into links within the site.
"""

from __future__ import annotations

import re
from pathlib import Path

import site_reference as reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_notebooks import page_of, run_notebook

ROOT = Path(__file__).parents[2]
FROM_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages that lie in the repository's root."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made from the code, the examples and the notebooks."""
    made: dict[str, str | bytes] = {
        "reference/bench-file.md": reference.bench_file(),
        "reference/command-line.md": reference.command_line(),
        "reference/run-file-columns.md": reference.run_file(),
    }
    for name, text in reference.api().items():
        made[f"reference/api/{name}.md"] = text
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        text, pictures = page_of(run_notebook(path), path.stem)
        made[f"notebooks/{path.stem}.md"] = text
        made |= {f"notebooks/{name}": picture for name, picture in pictures.items()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    beside = {name: ROOT / source for name, source in FROM_ROOT.items()}
    for kind in ("*.toml", "*.py", "*.npy", "*.safetensors"):
        beside |= {f"examples/{p.name}": p for p in (ROOT / "examples").glob(kind)}
    for name, path in beside.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables of keys on the page of recipes; links that are right in the repository made right in
    the site.
    """
    name = page.file.src_uri
    if name == "recipes.md":
        markdown = reference.recipes(markdown)
    if name in FROM_ROOT.values() or name in FROM_ROOT:
        markdown = markdown.replace("](docs/", "](").replace("](README.md", "](index.md")
    up = "../" * name.count("/")
    return re.sub(r"\]\((?:\.\./)+examples/", f"]({up}examples/", markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """The theme's script would fetch what old browsers lack, and diagrams, from elsewhere: leave
    it no address to fetch from.
    """
    for path in Path(config.site_dir).glob("assets/javascripts/bundle.*.min.js"):
        script = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"([\"'`])https?://", r"\1", script), encoding="utf-8")
    for path in Path(config.site_dir).rglob("*.map"):
        path.unlink()  # for debuggers of the theme, half of the site's size
