"""Two runs side by side: `python -m benchmarks.peers.compare A.json B.json`. Standard library only.

Says first what differs between them besides the code, since figures of different machines cannot be compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import grid

KIND = "drillcore-benchmarks"


def read(path: Path) -> dict[str, Any]:
    """A run's results; raises ValueError, with the reason, if the file holds none."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is invalid JSON: {error}") from None
    if not isinstance(results, dict) or results.get("kind") != KIND:
        raise ValueError(f"{path} holds no results of benchmarks.peers.run")
    return results


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[list[str]]:
    """What differs in hardware, versions, parameters, numerics and commit: rows of name, A, B."""
    rows = [["commit", str(a["git_commit"]), str(b["git_commit"])]]
    for part in ("hardware", "versions", "parameters", "numerics"):
        names = sorted(a[part].keys() | b[part].keys())
        rows += [[f"{part}.{n}", str(a[part].get(n, "-")), str(b[part].get(n, "-"))] for n in names]
    return [row for row in rows if row[1] != row[2]]


def steps(a: dict[str, Any], b: dict[str, Any]) -> list[list[str]]:
    """One text's medians: name, seconds in A and in B, and how many times as fast B is."""
    rows = []
    for name in [*a["medians"], *(n for n in b["medians"] if n not in a["medians"])]:
        before, after = a["medians"].get(name), b["medians"].get(name)
        faster = f"{before / after:.2f}" if before and after else ""
        rows.append([name, *("absent" if v is None else f"{v:.3f}" for v in (before, after)), faster])
    return rows


def claims(a: dict[str, Any], b: dict[str, Any]) -> list[list[str]]:
    """One text's targets: claim, wanted, and what A and B measured."""
    of_b = {t["claim"]: t for t in b["targets"]}
    rows = []
    for first in a["targets"]:
        second = of_b.get(first["claim"], {"value": None, "met": None})
        rows.append([first["claim"], first["target"], *(_verdict(t) for t in (first, second))])
    return rows


def _verdict(target: dict[str, Any]) -> str:
    if target["value"] is None:
        return "not measured"
    return f"{target['value']:.3g} ({'met' if target['met'] else 'not met'})"


def compare(a: dict[str, Any], b: dict[str, Any]) -> str:
    """The whole comparison, to read."""
    parts = []
    if changed := differences(a, b):
        parts.append(grid(["differs", "A", "B"], changed))
    for name, of_a in a["texts"].items():
        if name not in b["texts"]:
            parts.append(f"{name}: in A only")
            continue
        of_b = b["texts"][name]
        facts = [{k: t["facts"][k] for k in ("sentences", "tokens")} for t in (of_a, of_b)]
        parts.append(name if facts[0] == facts[1] else f"{name}: NOT THE SAME SENTENCES: {facts[0]} and {facts[1]}")
        parts[-1] += "\n" + grid(["seconds", "A", "B", "times as fast"], steps(of_a, of_b))
        parts[-1] += "\n" + grid(["target", "wanted", "A", "B"], claims(of_a, of_b))
    parts += [f"{name}: in B only" for name in b["texts"] if name not in a["texts"]]
    return "\n\n".join(parts)


def main(paths: list[str]) -> int:
    """Print the comparison; 2 if a file does not hold results."""
    if len(paths) != 2:
        print("usage: python -m benchmarks.peers.compare A.json B.json", file=sys.stderr)
        return 2
    try:
        print(compare(read(Path(paths[0])), read(Path(paths[1]))))
    except ValueError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
