"""What every stage of a run shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drillcore.executors.base import Executor
from drillcore.manifest import Manifest
from drillcore.preflight import Inputs
from drillcore.progress import Reporter
from drillcore.store.writer import StoreWriter


@dataclass(frozen=True)
class Context:
    """A run under way. out: folder beside the store. stages: those of this run."""

    inputs: Inputs
    store: StoreWriter
    executor: Executor
    manifest: Manifest
    report: Reporter
    out: Path
    stages: tuple[str, ...]
