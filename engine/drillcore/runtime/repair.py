"""Discards what the last verification found damaged, so that the run makes it again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drillcore.store.checks.finding import NOTE
from drillcore.store.places.files import list_names
from drillcore.store.writer import StoreWriter
from drillcore.system.progress import ProgressListener


def give_up_damage(store: StoreWriter, folders: Iterable[Path], listener: ProgressListener) -> None:
    """Discard what the last verification found damaged, so that the stages make it again.

    folders: where `drillcore verify` may have left its note.
    """
    for note in sorted(folder / NOTE for folder in folders):
        try:
            entries: list[dict[str, Any]] = json.loads(note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        _give_up(store, entries, listener)
        note.unlink()


def _give_up(store: StoreWriter, entries: list[dict[str, Any]], listener: ProgressListener) -> None:
    for path in sorted({e["group"] for e in entries}):
        if not list_names(store.root.store, path):
            continue  # the group was removed, or renamed, since
        damaged = [e for e in entries if e["group"] == path]
        writer = store.dataset(*path.split("/"))
        writer.retract(sorted({e["shard"] for e in damaged if e["mend"] == "shard"}))
        wrong = [e["shard"] for e in damaged if e["mend"] == "rows"]
        if wrong:
            writer.withdraw(sorted({shard for shard in wrong if shard is not None}))
        if any(e["mend"] == "columns" for e in damaged):
            writer.drop_columns()
        writer.drop_results(sorted({e["array"] for e in damaged if e["mend"] == "result"}))
        listener.say(f"{path}: computing again what `drillcore verify` found damaged")
