"""What every stage of a run shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drillcore.job.fields import Job
from drillcore.runtime.executors.base import Executor
from drillcore.runtime.manifest import Manifest
from drillcore.runtime.preflight import Inputs
from drillcore.store.writer import StoreWriter
from drillcore.system.progress import ProgressListener


@dataclass(frozen=True)
class Context:
    """A run under way. out: folder beside the store. overwrite: whether committed states may be computed again."""

    inputs: Inputs
    store: StoreWriter
    executor: Executor
    manifest: Manifest
    listener: ProgressListener
    out: Path
    overwrite: bool = False

    @property
    def job(self) -> Job:
        """The job of this run."""
        return self.inputs.loaded.job
