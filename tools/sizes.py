"""Modules stay within 400 lines and functions within 60: what outgrows that is split along what it owns.

`python tools/sizes.py` checks ROOTS; `--all` lists what is too large in tests, too, and does not fail for it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MAX_MODULE, MAX_FUNCTION = 400, 60
# The folders whose sizes are checked. To add: "tests", once `--all` lists nothing of it.
ROOTS = ("engine", "benchmarks", "tools")
OTHERS = ("tests",)


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


def main(arguments: list[str]) -> int:
    """Print what is too large; 1 if any of it is in ROOTS."""
    problems = [problem for root in ROOTS for problem in oversized(Path(root))]
    others = [problem for root in OTHERS for problem in oversized(Path(root))] if "--all" in arguments else []
    print("\n".join([*problems, *others]) or "sizes: every module and function is within its limits")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
