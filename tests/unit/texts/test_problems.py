"""Problems: the first ones are shown, all are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problem, Problems
from drillcore.texts.read import read_batches


def test_the_first_problems_are_shown_and_all_are_counted() -> None:
    problems = Problems(limit=2)
    problems.raise_if_any()
    for line in (3, None, 5, 6):
        problems.add("f.jsonl", line, "wrong")
    assert problems.shown == [Problem("f.jsonl", 3, "wrong"), Problem("f.jsonl", None, "wrong")]
    with pytest.raises(TextError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "f.jsonl:3: wrong\nf.jsonl: wrong\n... and 2 more like that, in 5, 6"
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_many_of_one_kind_leave_room_for_others() -> None:
    problems, others = Problems(limit=5), Problems()
    for line in range(1, 31):
        problems.add("f.jsonl", line, "no field `txt`")
        others.add("g.jsonl", line, "is empty")
    problems.add("f.jsonl", 31, "is empty")
    problems.take(others)
    for line in (40, 41):
        problems.add("h.jsonl", line, "is no string")
    with pytest.raises(TextError) as caught:
        problems.raise_if_any()
    assert str(caught.value).splitlines() == [
        *(f"f.jsonl:{line}: no field `txt`" for line in (1, 2, 3)),
        "... and 27 more like that, in 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, ...",
        "f.jsonl:31: is empty",
        "g.jsonl:1: is empty",
        "... and 29 more like that, in 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, ...",
        "... and 2 more",
    ]


def test_the_limit_is_twenty_and_later_files_are_still_checked() -> None:
    problems = Problems()
    assert problems.limit == 20
    for number in range(25):
        path = Path(f"nowhere-{number}.jsonl")
        list(read_batches(path, Dataset(name="d", path=""), problems))
    with pytest.raises(TextError) as caught:
        problems.raise_if_any()
    assert str(caught.value).endswith("... and 5 more")
