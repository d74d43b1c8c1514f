"""docs/json.md names exactly the keys of what `--json` prints."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from drillcore.api.doctor import Part, Parts
from drillcore.api.estimates import Estimate
from drillcore.api.measure import Comparison
from drillcore.api.planning import Plan, StageTime
from drillcore.api.show import Audit, Curve, Group, Shown, Stale
from drillcore.api.verify import Verified
from drillcore.cli.bench.rows import BenchCase, BenchRow
from drillcore.measures.comparison import Difference
from drillcore.store.checks.finding import Finding

PAGE = Path(__file__).parents[3] / "docs" / "json.md"
# Values that keys may have, not keys; keys that are written beside those of dataclasses.
WORDS = {"passed", "pending", "outdated", "null", "model/dataset", '""'}
KEYS = {
    "plan": [
        *Plan("s", (), (), 0).to_dict(),
        Estimate,
        *[f.name for f in fields(StageTime) if f.name != "stage"],  # whose names are the keys
    ],
    "show": [Shown, Group, Audit, Stale, Curve],
    "compare": [Comparison, Difference],
    "verify": [*Verified("s", ()).to_dict(), Finding],
    "doctor": [*Parts(()).to_dict(), Part],
    "bench": ["out", "rows", BenchRow, BenchCase],
}


@pytest.mark.parametrize("command", KEYS)
def test_the_page_names_every_key_and_no_other(command):
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    named = {*re.findall(r"`([^`]+)`", section)} - WORDS
    there = {
        name for part in KEYS[command] for name in ([f.name for f in fields(part)] if is_dataclass(part) else [part])
    }
    assert named == there
