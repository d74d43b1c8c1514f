"""Modules stay within 400 lines and functions within 60: what outgrows that is split along what it owns."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MAX_MODULE, MAX_FUNCTION = 400, 60


def oversized(root: Path) -> list[str]:
    """What is too large below a folder."""
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_MODULE:
            found.append(f"{path}: {lines} lines, at most {MAX_MODULE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    found.append(f"{path}:{node.lineno} {node.name}: {length} lines, at most {MAX_FUNCTION}")
    return found


if __name__ == "__main__":
    problems = [p for root in ("engine", "benchmarks") for p in oversized(Path(root))]
    print("\n".join(problems) or "sizes: every module and function is within its limits")
    sys.exit(bool(problems))
