"""Keeps a second run out of a store: held by an open file, so that the system releases it when its owner dies."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drillcore.errors import StoreError


@contextmanager
def store_lock(folder: Path, address: str) -> Iterator[None]:
    """Hold the lock of the store whose companion folder is `folder`.

    Raises StoreError, naming the holder, where another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"another run holds the store {address}: {_holder(folder / 'lock')}",
                hint="Wait for it, stop it, or give this job another store.",
            ) from None
        stream.truncate(0)
        stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%FT%T%z")}))
        stream.flush()
        yield


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}, since {note['since']}"
    except (OSError, ValueError, KeyError):
        return "its owner left no note"
