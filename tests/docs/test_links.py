"""Links of README.md, CONTRIBUTING.md and docs/ lead somewhere: files, pages, and headings of pages. No network."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tools.pages import ROOT, pages

PAGES = [*pages(), "CONTRIBUTING.md", "jobs/README.md", "benchmarks/gpu/README.md"]


def inline(page: Path):
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield from token.children or ()


@cache
def anchors(page: Path) -> list[str]:
    """Of each heading, as GitHub and the site write them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    plain = (unicodedata.normalize("NFC", re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", t)).lower() for t in titles)
    return [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain]


def broken(page: Path) -> list[str]:
    """Links and pictures of a page that lead nowhere."""
    found = []
    for token in inline(page):
        link = token.attrs.get("href") or token.attrs.get("src") if token.type in ("link_open", "image") else None
        if not link or re.match(r"[a-z]+:", str(link)):
            continue
        path, _, anchor = str(link).partition("#")
        target = page if not path else page.parent / path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(str(link))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert broken(ROOT / page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A title, `so`\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-title-so) [b](other.md#b) [c](gone.md) ![d](gone.png) <https://x.org>\n", encoding="utf-8"
    )
    assert broken(page) == ["other.md#b", "gone.md", "gone.png"]


@pytest.mark.parametrize("page", [p for p in pages() if p.startswith("docs/")])
def test_a_page_stands_in_a_table_of_contents(page):
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert page == "docs/index.md" or f"\n{page.removeprefix('docs/').removesuffix('.md')}\n" in index
