"""The documentation as a site: `make docs` writes it to build/site, to be opened from disk or served.

The site loads nothing from the network. A broken link or anchor, or a page that no table of contents has, ends the
build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a page could load by itself.
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")

project = "drillcore"
author = "the authors of drillcore"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "drillcore"
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
# Anchors of headings, as on the pages of a repository.
myst_heading_anchors = 4
# Records with their digests left out are no JSON, and are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]


def keep_paths(app, docname: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages become paths; raises where there is no such file."""
    here = (Path(app.srcdir) / docname).parent

    def path_of(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / link[2]))
        if target.is_relative_to(app.srcdir):
            return link[0]
        if not target.exists():
            raise FileNotFoundError(f"docs/{docname}.md: there is no {link[2]}")
        path = target.relative_to(ROOT).as_posix()
        return f"`{path}`" if path.endswith(link[1].strip("`/")) else f"{link[1]} (`{path}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)\s]+)\)", path_of, source[0])


def load_nothing(app, error: Exception | None) -> None:
    """Raise where a page of the site would load something from elsewhere."""
    for page in [] if error else sorted(Path(app.outdir).rglob("*.html")):
        found = LOADED.search(page.read_text(encoding="utf-8"))
        if found:
            raise ValueError(f"{page} loads from the network: {found[0]}")


def setup(app) -> None:
    """Register both with Sphinx."""
    app.connect("source-read", keep_paths)
    app.connect("build-finished", load_nothing)
