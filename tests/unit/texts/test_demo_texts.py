"""The derived texts of the demo are what they say."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = Path(__file__).parents[3] / "jobs" / "texts"


def read(name):
    return [json.loads(line) for line in (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_without_their_period_the_complete_sentences_are_the_same():
    whole, cut = read("toronto-montreal-complete"), read("toronto-montreal-complete-no-period")
    assert [{**row, "text": row["text"] + "."} for row in cut] == whole
    assert not any(row["text"].endswith(".") for row in cut)
