"""A place that a sentence does not have is wrong input: status 2, one message with the line, nothing written."""

from __future__ import annotations

import pytest

from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]

GOOD = {"text": "Ada went to Zürich 👩‍🚀 twice", "from": 0, "to": 3, "who": "Ada"}
SPAN = {"span": ["from", "to"], "name": "who"}
CASES = [
    (SPAN, {"to": 99}, "d.jsonl:2: fields `from` and `to`: 0 to 99 is beyond the text, which has 28 characters"),
    (SPAN, {"from": -1}, "d.jsonl:2: fields `from` and `to`: -1 to 3 is before the text"),
    (SPAN, {"from": 3}, "d.jsonl:2: fields `from` and `to`: 3 to 3 is empty"),
    (SPAN, {"to": "three"}, "d.jsonl:2: fields `from` and `to`: 'three' is no offset"),
    (SPAN, {"to": None}, "d.jsonl:2: "),
    (SPAN, {"to": ...}, "d.jsonl:2: no field `to`"),
    (
        {"text": "who", "name": "w"},
        {"who": "Eve"},
        "d.jsonl:2: field `who` holds 'Eve', which does not stand in the text",
    ),
    (
        {"text": "who", "name": "w", "occurrence": 2},
        {},
        "d.jsonl:1: field `who` holds 'Ada', which stands in the text 1 times",
    ),
    ({"text": "who", "name": "w"}, {"who": " "}, "d.jsonl:2: field `who` holds no text to look for"),
    (
        {"after": "went to", "name": "w"},
        {"text": "Ada stayed"},
        "d.jsonl:2: sentence 1 does not hold the marker 'went to' (d~w)",
    ),
    ({"mean": {"skip_first": 12}}, {"text": "Ada"}, "d.jsonl:2: sentence 1 has 4 tokens"),
]


@pytest.mark.parametrize(("position", "changed", "message"), CASES)
def test_it_is_refused_with_its_line(position, changed, message, new_work):
    work = new_work(backend="transformers")
    rows = [GOOD, {k: v for k, v in {**GOOD, **changed}.items() if v is not ...}]
    work.texts("d", rows)
    work.job["extract"]["positions"] = ["last", position]
    work.save()
    before = snapshot(work.folder)
    command = work.run()
    assert command.status == 2, command.err
    assert message in command.err and command.err.count("d.jsonl:") in (1, 2)
    assert "Traceback" not in command.err and snapshot(work.folder) == before


POSITIONS = [
    ([], "names no position"),
    (["first"], "is one of last, mean, all, turns"),
    (["mean", {"mean": {"skip_first": 1}}], "mean is named twice"),
    ([{"span": ["from", "to"]}], "needs a `name:`"),
    ([{"after": "x", "name": "a~b"}], "may hold letters"),
    ([{"after": "x", "name": "a", "pool": "mean"}], "belongs to `span` and `text`"),
    ([{"last": 2, "mean": {}}], "must hold one of"),
    ([{"last": 0}], "must be a whole number from 1 to 65,536 (given: 0)"),
    ([{"mean": {}, "layers": [0, 9]}], "layer 9 is not one of extract.layers"),
    ([{"mean": {}, "layers": []}], "names no layer"),
    ([{"middle": 3}], "middle: unknown field"),
]


@pytest.mark.parametrize(("positions", "message"), POSITIONS)
def test_a_position_that_is_none(positions, message, new_work):
    work = new_work(backend="transformers", count=4)
    work.job["extract"]["positions"] = positions
    work.save()
    command = work.run()
    assert command.status == 2 and message in command.err, command.err
    assert not work.store.exists()


@pytest.mark.parametrize(
    ("position", "dataset", "message"),
    [
        ({"span": ["from", "row"], "name": "w"}, {}, "extract.positions: `row` is a name that drillcore uses itself"),
        ({"last": 2}, {"keep": ["mask"]}, "keep: `mask` is a name that drillcore uses itself"),
    ],
)
def test_names_that_are_taken(position, dataset, message, new_work):
    work = new_work(backend="transformers", count=4)
    work.job["datasets"][0] |= dataset
    work.job["extract"]["positions"] = ["last", position]
    work.save()
    command = work.run()
    assert command.status == 2 and message in command.err, command.err
    assert not work.store.exists()


def test_what_does_not_go_together(new_work):
    work = new_work(backend="transformers", count=4)
    for changes, message in (
        ({"extract": {"positions": ["mean"], "too_long": "truncate"}}, "may cut off other places than the last token"),
        (
            {"extract": {"positions": ["mean"]}, "datasets": [{"name": "d", "path": "d.jsonl", "candidates": [" a"]}]},
            "expected_next and candidates follow the last token",
        ),
        (
            {"extract": {"positions": ["mean"]}, "datasets": [{"name": "d", "path": "d.jsonl", "keep": ["token"]}]},
            "token",
        ),
    ):
        work.job.update(changes)
        work.save()
        command = work.run()
        assert command.status == 2 and message in command.err, command.err
        assert not work.store.exists()
