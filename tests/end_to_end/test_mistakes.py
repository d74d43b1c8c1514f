"""`docs/mistakes.md` says of the likeliest mistakes what a command says of them, with nothing written.

Run with DRILLCORE_WRITE_MISTAKES=1 to write the page's table anew from what the commands say.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.mistakes import JOB, MISTAKES, TEXTS, Mistake
from support.runs import Work, snapshot
from support.words import LIBRARY_WORDS

pytest_plugins = ["support.run_fixtures"]
PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
BEGIN = "<!-- The tables below are written by tests/end_to_end/test_mistakes.py. -->\n"
SAID: dict[str, str] = {}


def identity(mistake: Mistake) -> str:
    return f"{mistake.kind}: {mistake.typed}"


@pytest.fixture
def place(forge, tmp_path) -> Work:
    """A folder with a good job, its texts and its model."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    (folder / "texts.csv").write_text(TEXTS, encoding="utf-8")
    (folder / "model").symlink_to(forge.model)
    return Work(folder, forge, {})


def arranged(place: Work, mistake: Mistake) -> None:
    for name, content in mistake.files.items():
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in mistake.before:
        done = place.forge.run(*command.split(), cwd=place.folder)
        assert done.status == 0, done.err
    if mistake.arrange is not None:
        mistake.arrange(place)


def written(place: Work) -> dict[str, tuple[int, int]]:
    """What there is, without the lock of a store: taken and given back, it is as it was."""
    return {name: facts for name, facts in snapshot(place.folder).items() if not name.endswith("/lock")}


def cell(message: str, place: Work) -> str:
    """What a command said, as it stands in a table: one line, without the folder of the test."""
    words = message.removeprefix("drillcore: ").rstrip("\n").replace(f"{place.folder}{os.sep}", "")
    words = words.replace(str(place.folder), "FOLDER")
    return "<br>".join(f"`` {line.strip()} ``" for line in words.split("\n")).replace("|", "\\|")


def row(mistake: Mistake, said: str) -> str:
    return f"| {mistake.typed.replace('|', chr(92) + '|')} | {said} |"


@pytest.mark.parametrize("mistake", MISTAKES, ids=identity)
def test_a_mistake_is_told_as_the_page_says(place, mistake):
    arranged(place, mistake)
    before = written(place)
    # No network: a machine that is connected would ask the hub.
    command = place.forge.run(
        *mistake.arguments.split(), cwd=place.folder, first=mistake.first, env={"HF_HUB_OFFLINE": "1"}
    )
    assert command.status == 2, (command.status, command.out, command.err)
    assert written(place) == before, "something was written"
    assert command.err.startswith("drillcore: ") and command.err.count("drillcore: ") == 1, command.err
    assert not [word for word in LIBRARY_WORDS if word in command.err], command.err
    assert len(command.err.splitlines()) <= 4, "one message"
    SAID[identity(mistake)] = cell(command.err, place)
    if not os.environ.get("DRILLCORE_WRITE_MISTAKES"):
        assert row(mistake, SAID[identity(mistake)]) in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_these_and_no_others():
    text = PAGE.read_text(encoding="utf-8")
    head, _, tables = text.partition(BEGIN)
    if os.environ.get("DRILLCORE_WRITE_MISTAKES"):
        sections = []
        for kind in dict.fromkeys(mistake.kind for mistake in MISTAKES):
            rows = [row(m, SAID[identity(m)]) for m in MISTAKES if m.kind == kind]
            sections.append("\n".join([f"## {kind}", "", "| mistake | what is said |", "| --- | --- |", *rows, ""]))
        PAGE.write_text(head + BEGIN + "\n" + "\n".join(sections), encoding="utf-8")
        return
    typed = [line.split(" | ")[0].removeprefix("| ") for line in tables.splitlines() if line.startswith("| ")]
    headings = ("mistake", "---")
    assert [t for t in typed if t not in headings] == [m.typed for m in MISTAKES]
    assert len(MISTAKES) >= 40
    assert len({identity(m) for m in MISTAKES}) == len(MISTAKES)
