"""What the table of architectures in docs/models.md says."""

from __future__ import annotations

from pathlib import Path

TABLE = Path(__file__).parents[2] / "docs" / "models.md"


def layers_of(kind: str) -> str:
    """The layers that an architecture runs with; empty where it does not run."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    ran = {row[0]: row[3] for row in rows if len(row) == 5 and row[1] in ("packed", "padded", "equal")}
    return ran.get(kind, "")
