"""The blocks of README.md and docs/, read as a reader of the page would: what each is, and what is to be done with it.

A comment on the line above a block says what its kind does not: `<!-- file: NAME -->` writes it to a file,
`<!-- output -->` is what the block before prints (`...` stands for anything), `<!-- fails: STATUS -->` ends so,
`<!-- long -->` runs in the long form only, `<!-- needs: NAME -->` where a package or command is there, and
`<!-- not run: REASON -->` never runs. `tests/docs` runs them.

    python -m tools.pages    # writes docs/blocks-not-run.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- (file|output|fails|long|needs|not run)(?:: (.*?))? -->")
NOT_RUN = ROOT / "docs" / "blocks-not-run.md"
HEAD = """\
# Blocks that no test runs

`tests/docs` runs every command, YAML and Python block of the README and of these pages, a page at a time, in a folder
of its own; slow ones, and what is printed, in the long form (`make test-long`). What it leaves out is listed here
(`make reference` writes this page). `tools/pages.py` says which comment above a block does what.

| page | block | why |
| --- | --- | --- |
"""
SHELL = ("bash", "sh", "shell", "console")
# Commands that no test runs, by how they begin, and why.
ELSEWHERE = {
    "make ": "needs a checkout, and installs an environment of its own; CI runs install, check, test and docs",
    "pip install ": "needs a package index",
    "npm install ": "needs a package index",
    "sbatch ": "needs Slurm",
    "ray start ": "needs a cluster; tests/conformance runs jobs on Ray clusters of one machine",
    "tmux ": "needs a terminal",
    ".venv-vllm/": "needs vLLM's own environment; make test-vllm runs jobs in it",
    "python -m benchmarks.": "takes minutes; tests/unit/benchmarks runs the benchmarks at toy size",
    "python docs/pictures/": "needs a browser and the whole run of jobs/demo.yaml",
}


@dataclass(frozen=True)
class Block:
    """One block. page: path from the root. line: of its first line of text, from 1. marks: of the comments above it."""

    page: str
    line: int
    kind: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Page and line, for a message."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, each with the lines that continue it."""
        return re.findall(r"(?:.*\\\n)*.+", self.text)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """What of it no test runs, and why."""
        if "not run" in self.marks:
            return [(self.text.strip().split("\n")[0], self.marks["not run"])]
        if self.kind not in SHELL or "file" in self.marks or "output" in self.marks:
            return []
        return [
            (c.split("#")[0].strip(), why) for c in self.commands for b, why in ELSEWHERE.items() if c.startswith(b)
        ]

    @property
    def runnable(self) -> str:
        """The commands of a shell block that a test runs."""
        return "\n".join(c for c in self.commands if not c.startswith(tuple(ELSEWHERE)))


def pages() -> list[str]:
    """README.md and every page of docs/."""
    return ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def blocks_of(page: str) -> list[Block]:
    """Blocks in the order of the page. Indented ones are commands, as in the README."""
    return list(blocks_in(page, (ROOT / page).read_text(encoding="utf-8")))


def blocks_in(page: str, text: str) -> Iterator[Block]:
    """The blocks of a text that stands on a page."""
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "html_block":
            marks |= {name: value or "" for name, value in MARK.findall(token.content)}
        elif token.type == "fence" and token.info.startswith("{"):
            continue  # a directive of the site
        elif token.type in ("fence", "code_block"):
            info = token.info.split()
            kind = "bash" if token.type == "code_block" else info[0] if info else "text"
            assert token.map
            yield Block(page, token.map[0] + 1 + (token.type == "fence"), kind, token.content, marks)
            marks = {}
        elif token.content.strip():
            marks = {}


def not_run() -> list[str]:
    """Rows of a Markdown table: what no test runs, with its page and the reason; blocks of one reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for block in (block for page in pages() for block in blocks_of(page)):
        for what, why in block.skipped:
            found.setdefault((block.page.removeprefix("docs/"), why), []).append(what.replace("|", "\\|"))
    return [
        f"| {page} | `{whats[0]}`{f' and {len(whats) - 1} more' if len(whats) > 1 else ''} | {why} |"
        for (page, why), whats in found.items()
    ]


def page_of_blocks_not_run() -> str:
    """The page that lists them."""
    return HEAD + "".join(f"{row}\n" for row in not_run())


if __name__ == "__main__":
    NOT_RUN.write_text(page_of_blocks_not_run(), encoding="utf-8")
