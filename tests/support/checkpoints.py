"""Changes files of a model's folder, as damage and mistakes do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def copied(folder: Path, target: Path) -> Path:
    """A copy of a model's folder that a test may change."""
    shutil.copytree(folder, target)
    return target


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor] | None], file: str = WEIGHTS) -> None:
    """Write a weights file again, after `change`, which changes its tensors in place or returns others."""
    tensors = load_file(folder / file)
    changed = change(tensors)
    kept = tensors if changed is None else changed
    # Tensors that share memory cannot be saved.
    save_file({n: t.contiguous().clone() for n, t in kept.items()}, folder / file, metadata={"format": "pt"})


def drop(folder: Path, fragment: str) -> None:
    """Take all tensors whose name holds `fragment` out of the weights file."""
    rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if fragment not in n})


def configure(folder: Path, **entries: Any) -> None:
    """Set entries of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


def split(folder: Path) -> list[str]:
    """Replace the weights file by shards of some tensors each and an index; the names of the shards."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names, weight_map = sorted(tensors), {}
    shards = [f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    for i, shard in enumerate(shards):
        part = {n: tensors[n].clone() for n in names[i::3]}
        save_file(part, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    write_index(folder, {"metadata": {"total_size": 0}, "weight_map": weight_map})
    return shards


def write_index(folder: Path, entries: dict[str, Any]) -> None:
    """Write the index of the shards."""
    (folder / INDEX).write_text(json.dumps(entries), encoding="utf-8")


def read_index(folder: Path) -> dict[str, Any]:
    """The index of the shards."""
    entries: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return entries
