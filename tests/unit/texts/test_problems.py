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
    assert str(caught.value) == "f.jsonl:3: wrong\nf.jsonl: wrong\n... and 2 more"
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_the_limit_is_twenty_and_later_files_are_still_checked() -> None:
    problems = Problems()
    assert problems.limit == 20
    path = Path("nowhere.jsonl")
    for _ in range(25):
        list(read_batches(path, Dataset(name="d", path=""), problems))
    with pytest.raises(TextError) as caught:
        problems.raise_if_any()
    assert str(caught.value).endswith("... and 5 more")
