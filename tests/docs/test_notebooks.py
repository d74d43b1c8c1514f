"""The example notebooks run from their first cell to the last, in a folder of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    book = nbformat.read(path, 4)
    assert not any(cell.get("outputs") for cell in book.cells)  # they are not kept
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # `!drillcore` is the command of this environment.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    errors = [o for cell in book.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert not errors


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["model-in-memory", "own-csv"]
