"""Files of other encodings, and rows without a text: from job file to opened store, and what is refused."""

from __future__ import annotations

import pytest

import drillcore
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
TEXTS = ["Größe „groß“", "naïve café", "plain"]


def run(work, name: str, content: bytes, *, overwrites: bool = False, **dataset):
    (work.folder / name).write_bytes(content)
    work.job["datasets"] = [{"name": "d", "path": name, **dataset}]
    work.save()
    return work.run(*(["--overwrite"] if overwrites else []))


def stored(work):
    return drillcore.open(work.store)["m/d"].to_dataset()


FILES = {
    "a.csv": "text,label\n" + "".join(f"{text},x\n" for text in TEXTS),
    "a.tsv": "text\tlabel\n" + "".join(f"{text}\tx\n" for text in TEXTS),
    "a.jsonl": "".join(f'{{"text": "{text}"}}\n' for text in TEXTS),
    "a.txt": "".join(f"{text}\r\n" for text in TEXTS),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_encoding_is_read(new_work, name):
    work = new_work()
    command = run(work, name, FILES[name].encode("cp1252"), encoding="windows-1252")
    assert command.status == 0, command.err
    assert stored(work).text.values.tolist() == TEXTS
    states = stored(work).hidden_states.values
    assert run(work, name, FILES[name].encode(), overwrites=True).status == 0
    assert stored(work).text.values.tolist() == TEXTS and (stored(work).hidden_states.values == states).all()


WRONG = {
    "no encoding": (b"text\nGr\xf6\xdfe\n", {}, "a.csv:2: is not UTF-8: byte 0xf6 at byte 3 of the line; save"),
    "which field": (b"text\nGr\xf6\xdfe\n", {}, "or name its `encoding`, such as cp1252"),
    "another one": (b"text\na\nb\x81\n", {"encoding": "cp1252"}, "a.csv:3: is not cp1252: byte 0x81 at byte 2"),
    "a mark": (b"\xef\xbb\xbftext\na\n", {"encoding": "cp1252"}, "a.csv:1: begins with the mark of UTF-8"),
    "an empty text": (
        b"text,label\na,x\n,\n",
        {},
        "a.csv:3: field `text` is empty; `empty: drop` leaves such rows out",
    ),
    "all empty": (b"text,label\n,\n,\n", {"empty": "drop"}, "a.csv: holds no sentence"),
    "too few fields": (b"text,label\na,x\nb\n", {"empty": "drop"}, "a.csv:3: has 1 field where the header has 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_it_is_refused_with_its_line(new_work, case):
    content, fields, message = WRONG[case]
    work = new_work()
    (work.folder / "a.csv").write_bytes(content)
    work.job["datasets"] = [{"name": "d", "path": "a.csv", **fields}]
    work.save()
    before = snapshot(work.folder)
    command = work.run()
    assert command.status == 2 and message in command.err and "Traceback" not in command.err, command.err
    assert snapshot(work.folder) == before


BLANK = {
    "a.csv": (b"text,label\na,x\n,\n\n  ,\nb,y\nc,x\n,\n,\n", 5),
    "a.tsv": (b"text\tlabel\na\tx\n\t\n\nb\ty\nc\tx\n\t\n", 3),
    "a.jsonl": (b'{"text":"a"}\n{"text":null}\n\n{"text":"b"}\n{"text":" "}\n{"text":"c"}\n\n', 3),
    "a.txt": (b"a\n\n \nb\nc\n\n\n", 2),
}


@pytest.mark.parametrize("name", BLANK)
def test_rows_without_a_text_are_left_out_and_counted(new_work, name):
    content, dropped = BLANK[name]
    work = new_work()
    command = run(work, name, content, empty="drop")
    assert command.status == 0, command.err
    assert f"d: {dropped} rows have no text in the field `text`: left out (`empty: drop`)" in command.err
    assert stored(work).text.values.tolist() == ["a", "b", "c"]
    if name.endswith("sv"):
        assert stored(work).label.values.tolist() == ["x", "y", "x"]
    assert run(work, name, content, empty="drop", limit=2, overwrites=True).status == 0
    assert stored(work).text.values.tolist() == ["a", "b"]
