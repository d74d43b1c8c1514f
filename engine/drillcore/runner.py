"""A run: preflight, lock, store, stages, manifest, in that order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from drillcore.errors import DrillcoreError, InterruptedRun
from drillcore.executors import EXECUTORS
from drillcore.executors.base import Executor
from drillcore.job import LoadedJob
from drillcore.manifest import Manifest
from drillcore.plugins import load_by_name
from drillcore.preflight import check_job
from drillcore.progress import Reporter
from drillcore.stages.context import Context
from drillcore.store.location import Location
from drillcore.store.lock import store_lock
from drillcore.store.writer import StoreWriter

STAGES = {
    "extract": "drillcore.stages.extract:extract",
    "project": "drillcore.stages.project:project",
    "render": "drillcore.stages.render:render",
}
ALL_STAGES = tuple(STAGES)


def run_stages(loaded: LoadedJob, stages: Sequence[str], report: Reporter, out: Path | None = None) -> Path:
    """Run some stages of a job, in the order of the pipeline; returns the folder beside the store.

    Raises an error of the tree in `errors`; whatever it is, the manifest says how the run ended.
    """
    inputs = check_job(loaded, report)
    location = Location(loaded.store)
    folder = location.beside(out)
    with store_lock(folder, location.address):
        manifest = Manifest(folder / "manifest.json", loaded)
        store = StoreWriter(location, loaded.job.name, manifest.facts["versions"].get("drillcore", ""))
        executor: Executor = load_by_name("executor", loaded.job.run.executor, EXECUTORS)(loaded.job.run)
        manifest.record("executor", **executor.describe())
        context = Context(inputs, store, executor, manifest, report, folder)
        try:
            for stage in stages:
                _stage(stage)(context)
            store.finish()
        except KeyboardInterrupt:
            manifest.write("interrupted")
            raise InterruptedRun(
                "interrupted; what was committed is kept", hint="Run the same command again to go on."
            ) from None
        except BaseException as error:
            manifest.write("failed: " + (str(error) if isinstance(error, DrillcoreError) else repr(error)))
            raise
        finally:
            executor.close()
        manifest.write("done")
    return folder


def _stage(name: str) -> Callable[[Context], None]:
    module, _, function = STAGES[name].partition(":")
    found: Callable[[Context], None] = getattr(__import__(module, fromlist=[function]), function)
    return found
