"""The CSV of a comparison: no name becomes a formula, and every number stays a number."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import fields

import numpy as np
import pytest

from drillcore.measures.comparison import Difference, Side, as_csv, compare

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    '=HYPERLINK("http://x","y")',
)


def row(**changes):
    words = {"layer_name": "embed", "metric": "probe", "verdict": "no difference"}
    numbers = {f.name: -0.25 for f in fields(Difference) if f.name not in words}
    return Difference(**{**words, **numbers, "layer_a": 0, "layer_b": 0, **changes})


@pytest.mark.parametrize("word", HOSTILE)
@pytest.mark.parametrize("field", ["layer_name", "metric", "verdict"])
def test_a_word_is_never_a_formula(word, field):
    (read,) = csv.DictReader(io.StringIO(as_csv([row(**{field: word})]), newline=""))
    assert read[field] == f"'{word}"


def test_ordinary_words_and_numbers_stay():
    values = {
        "a": -1.5,
        "b": 0.0,
        "low": -math.inf,
        "high": math.nan,
        "verdict": "a/b tighter",
        "layer_name": "block_1",
    }
    (read,) = csv.DictReader(io.StringIO(as_csv([row(**values)])))
    assert {k: read[k] for k in values} == {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
    assert all(float(read[name]) or True for name in ("a", "b", "difference", "low", "high", "all_low", "all_high"))


def test_the_name_of_a_group_is_no_formula():
    values_LMB = np.array([[[0.5, 0.45, 0.55, np.nan, np.nan, np.nan]]], np.float32)
    a = Side("=cmd/d", (0,), ("embed",), ("probe",), values_LMB)
    b = Side("b", (0,), ("embed",), ("probe",), values_LMB - np.float32(0.3))
    assert "'=cmd/d separates better" in as_csv(compare(a, b, ["probe"]))
