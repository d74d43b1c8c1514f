"""Reading a model's weights before they are needed, so that loading finds them in the page cache."""

from __future__ import annotations

import os
from pathlib import Path

from drillcore.backends.source import HUB_PATTERNS, locate
from drillcore.job.fields import Model

PIECE_BYTES = 16 * 2**20


def read_weights(model: Model, base: Path) -> int:
    """Read a model's safetensors files once, fetching a hub model first; returns the bytes read.

    Reads nothing where they would take more than half of the memory that is free: it would be dropped again.
    """
    if model.random_weights:
        return 0
    source = locate(model, base)
    folder = Path(source.location)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source.location, revision=source.revision, allow_patterns=HUB_PATTERNS))
    files = sorted(folder.glob("*.safetensors"))
    if sum(f.stat().st_size for f in files) > _free_bytes() // 2:
        return 0
    return sum(_read(f) for f in files)


def _read(path: Path) -> int:
    piece, count = bytearray(PIECE_BYTES), 0
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(piece):
            count += size
    return count


def _free_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
