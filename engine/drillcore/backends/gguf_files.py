"""GGUF files: whether one can be read to its end and holds every layer. Reads headers only."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.bounds import problem_with

BLOCK = re.compile(r"blk\.(\d+)\.(.*)")


def check_gguf(model: str, path: Path) -> None:
    """Raise ModelError where a GGUF file is not there, is damaged, or lacks layers.

    model: its id, for messages. Raises MissingExtraError where the package that reads it is not installed.
    """
    if problem := problem_with(path):
        raise ModelError(
            f"model {model}: {path} {problem}", hint="gguf_file names a file in the directory that id names."
        )
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"model {model}: a GGUF file needs {missing[0]}, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )
    try:
        from gguf import GGUFReader

        names = [tensor.name for tensor in GGUFReader(path).tensors]
    except Exception as error:  # of a damaged file any number may be anything
        raise ModelError(
            f"model {model}: {path} is not a GGUF file, or is cut off or damaged ({type(error).__name__}: {error})",
            hint="Download it again, or copy it from where it is whole.",
        ) from error
    layers: dict[int, set[str]] = {}
    for found in filter(None, map(BLOCK.fullmatch, names)):
        layers.setdefault(int(found[1]), set()).add(found[2])
    if not layers or set(layers) != set(range(len(layers))):
        raise ModelError(
            f"model {model}: {path} does not hold the layers of a model", hint="One file must hold the whole model."
        )
