"""Modules stay within 400 lines and functions within 60: what outgrows that is split along what it owns."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MAX_MODULE, MAX_FUNCTION = 400, 60
ROOTS = ("engine", "benchmarks", "tools", "tests")


def oversized(root: Path) -> list[str]:
    """Modules and functions below a folder that are too large, a line each."""
    problems = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_MODULE:
            problems.append(f"{path}: {lines} lines, at most {MAX_MODULE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    problems.append(f"{path}:{node.lineno} {node.name}: {length} lines, at most {MAX_FUNCTION}")
    return problems


def main() -> int:
    """Print what is too large; returns 1 if anything is."""
    problems = [problem for root in ROOTS for problem in oversized(Path(root))]
    print("\n".join(problems) or "sizes: every module and function is within its limits")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
