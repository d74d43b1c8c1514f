"""Counts what the chosen columns of a file hold, over all of its rows: labels, rows without one, texts twice."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.system.nearly import fold
from drillcore.texts.columns import columns_of
from drillcore.texts.formats import read_rows
from drillcore.texts.guess import Guess
from drillcore.texts.notes import LIKE_NONE, MOST_VALUES
from drillcore.texts.problems import Problems

# Rows whose texts are compared.
MOST_COMPARED = 1_000_000


@dataclass
class Tally:
    """What the rows of a file hold in the columns that were chosen.

    labels: rows by label, where labels are classes; range: their least and greatest, where they are numbers and there
    is one. num_unlabelled: rows whose label is null, empty or absent. odd_labels, odd_identifiers,
    odd_expected: rows whose value there cannot be one. num_repeated: rows whose text stood in a row before, among the
    first million. longest: characters of the longest text.
    """

    num_rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    range: tuple[float, float] | None = None
    num_unlabelled: int = 0
    odd_labels: int = 0
    odd_identifiers: int = 0
    odd_expected: int = 0
    num_repeated: int = 0
    longest: int = 0

    @property
    def like_none(self) -> list[str]:
        """Labels that programs write for a missing value; `none` itself may well be a label."""
        return [label for label in self.labels if fold(label) in LIKE_NONE and label not in ("none", "NONE")]


def tally(guess: Guess) -> Tally:
    """Read all rows of a file. What is wrong with a row of another column, or as a whole, is not looked at here.

    Raises:
        TextError: rows cannot be read.
    """
    found, problems = Tally(), Problems()
    chosen = (guess.text, guess.label, guess.identifier, guess.expected_next)
    wanted = [name for name in chosen if name is not None]
    dataset = Dataset(name="texts", path=str(guess.path), label=guess.label, unlabelled="keep")
    types = {"label": pa.float64()} if guess.is_number else {}
    label = next((c for c in columns_of(dataset, guess.label, types) if c.name == "label"), None)
    seen = set[int]()
    for _, row in read_rows(guess.path, guess.kind, wanted, partial(problems.add, str(guess.path))):
        if row is None:
            continue
        found.num_rows += 1
        if label is not None:
            _see_label(found, label.convert, row.get(label.field))
        if guess.identifier is not None:
            value = row.get(guess.identifier)
            found.odd_identifiers += isinstance(value, bool) or not isinstance(value, str | int)
        if guess.expected_next is not None:
            value = row.get(guess.expected_next)
            found.odd_expected += not isinstance(value, str) or not value
        text = str(row.get(guess.text))
        found.longest = max(found.longest, len(text))
        if found.num_rows <= MOST_COMPARED:
            seen.add(hash(text))
    problems.raise_if_any()
    found.num_repeated = min(found.num_rows, MOST_COMPARED) - len(seen)
    return found


def _see_label(found: Tally, convert: Any, value: Any) -> None:
    try:
        label = convert(value)
    except ValueError:
        found.odd_labels += 1
        return
    if isinstance(label, float) and not math.isnan(label):
        low, high = found.range or (label, label)
        found.range = min(low, label), max(high, label)
    elif not label or isinstance(label, float):
        found.num_unlabelled += 1
    elif len(found.labels) <= MOST_VALUES:
        found.labels[label] += 1
