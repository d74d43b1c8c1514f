"""How the tests of readers read a file, and files they read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches

ROWS = b'{"text": "a b", "label": 1}\n{"text": "c", "label": "x"}\n'


def read(path: Path, **settings: Any) -> tuple[dict[str, list[Any]], list[str]]:
    """Columns and problems, each problem without the folder."""
    problems = Problems()
    dataset = Dataset(name="d", path=path.name, **settings)
    batches = list(read_batches(path, dataset, problems))
    assert not (problems.count and batches)
    messages = [str(problem).replace(f"{path.parent}{os.sep}", "") for problem in problems.shown]
    return (pa.Table.from_batches(batches).to_pydict() if batches else {}), messages


def read_content(name: str, content: bytes, **settings: Any) -> tuple[dict[str, list[Any]], list[str]]:
    """The same of a file of this name and content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read(path, **settings)


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())
