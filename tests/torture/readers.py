"""What each reader of a store shows: `open`, `show`, `export` and `render`, as digests by name, or its refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drillcore.errors import DrillcoreError
from torture.drill import Outcome, drill
from torture.job import STORE

# Words by which a reader marks what it shows as incomplete or as not belonging to what stands beside it.
MARKS = ("stale", "not ended", "not of these states", "damage", "left the job")


@dataclass(frozen=True)
class Shown:
    """What a reader showed, by name. outcome: how it ended; nothing counts as shown after a refusal."""

    reader: str
    outcome: Outcome
    parts: dict[str, str]


def read_all(groups: Iterable[str]) -> list[Shown]:
    """All readers on the store of the working directory; exports of some groups, `model/dataset`."""
    exports = [_export(group, kind) for group in groups for kind in ("parquet", "npy")]
    return [_open(), _show(), _render(), *exports]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _open() -> Shown:
    import drillcore

    parts: dict[str, str] = {}
    try:
        tree = drillcore.open(STORE, internals=True)
        for node in tree.subtree:
            parts[f"{node.path}: attributes"] = _digest(json.dumps(node.attrs, sort_keys=True, default=str).encode())
            for name, variable in node.to_dataset(inherit=False).variables.items():
                values = np.asarray(variable.values)
                data = values.tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()
                parts[f"{node.path}/{name}"] = "stale" if "stale" in variable.attrs else _digest(data)
    except DrillcoreError as error:
        return Shown("open", Outcome(error.exit_status, str(error)), {})
    except Exception:
        return Shown("open", Outcome(1, traceback.format_exc()), {})
    return Shown("open", Outcome(0, ""), parts)


def _show() -> Shown:
    outcome = drill("show", STORE)
    return Shown("show", outcome, {f"line {i}": line for i, line in enumerate(outcome.said.splitlines())})


def _export(group: str, kind: str) -> Shown:
    out = Path(tempfile.mkdtemp(dir=".")) / f"layer.{kind}"
    outcome = drill("export", STORE, "--group", group, "--layer", "2", "--to", kind, "--out", str(out))
    parts = {"file": _digest(out.read_bytes())} if outcome.status == 0 else {}
    shutil.rmtree(out.parent)
    return Shown(f"export of {group} to {kind}", outcome, parts)


def _render() -> Shown:
    out = Path(tempfile.mkdtemp(dir="."))
    outcome = drill("render", "job.yaml", "--out", str(out))
    files = [p for p in out.rglob("*") if p.is_file() and (p.suffix == ".png" or p.name == "report.html")]
    parts = {p.name: _digest(p.read_bytes()) for p in files} if outcome.status == 0 else {}
    shutil.rmtree(out)
    return Shown("render", outcome, parts)


def wrongly_shown(now: Shown, truth: Shown) -> list[str]:
    """Names of what a reader shows otherwise than it would for the right store, neither refused nor marked."""
    if now.outcome.status != 0:
        return []
    names = sorted({*now.parts, *truth.parts})
    wrong = [n for n in names if now.parts.get(n) != truth.parts.get(n) and now.parts.get(n) != "stale"]
    if now.reader == "show" and wrong:
        # An incomplete store is shown as one.
        said = now.outcome.said
        shares = [word for word in said.split() if word.endswith("%")]
        if any(mark in said for mark in MARKS) or any(share != "100%" for share in shares):
            return []
    return wrong
