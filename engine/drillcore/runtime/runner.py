"""A run: preflight, lock, store, stages, manifest, in that order."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from drillcore.errors import DrillcoreError, InputError, RunError
from drillcore.job.fields import LoadedJob
from drillcore.runtime.context import Context
from drillcore.runtime.executors.base import Executor
from drillcore.runtime.failures import PartFailed, is_whole
from drillcore.runtime.guard import check_place, refuse_losses, refuse_stale, refuse_unready
from drillcore.runtime.log import FILES, RunLog
from drillcore.runtime.manifest import Manifest, read_manifest
from drillcore.runtime.preflight import Inputs, check_job
from drillcore.runtime.repair import discard_damage, refuse_damage
from drillcore.runtime.session import Session
from drillcore.runtime.settings import check_places, check_settings
from drillcore.runtime.stages import load_stage
from drillcore.runtime.timekeeper import Timekeeper
from drillcore.runtime.wanted import record_wanted
from drillcore.store.places.hold import Hold
from drillcore.store.places.location import Location, make_folder
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.writer import StoreWriter, refuse_foreign
from drillcore.system.files import cache_dir
from drillcore.system.progress import ProgressListener, Silent, tell_detail, telling
from drillcore.system.versions import installed_versions

# Stages that run models; the others read the store.
LOADING = frozenset(("extract", "predict"))


def run_stages(
    loaded: LoadedJob,
    stages: Sequence[str],
    listener: ProgressListener,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    session: Session | None = None,
) -> Path:
    """Run some stages of a job, in the order of the pipeline; returns the folder beside the store.

    overwrite: whether committed states may be taken away or computed again where the job changed. session: keeps the
    model for the next run. Raises an error of the tree in `errors`; whatever it is, manifest and log say how the run
    ended. Handles no signal: a KeyboardInterrupt passes through, and what was committed is kept.
    """
    with closing(RunLog(listener)) as log, telling(log.say, log.detail):
        if session is not None:
            folder = _run_stages(loaded, stages, log, out, overwrite, session)
            session.is_checked = True
            return folder
        with closing(Session()) as once:
            return _run_stages(loaded, stages, log, out, overwrite, once)


def check_run(
    loaded: LoadedJob,
    stages: Sequence[str],
    session: Session,
    out: Path | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Raise what `run_stages` would raise before it writes anything; says nothing, and writes nothing but the cache."""
    listener = Silent()
    with telling(listener.say, listener.say):
        location, folder, executor, inputs = _checked(loaded, stages, listener, out, session)
        if "extract" in stages and not overwrite:
            refuse_losses(inputs, location, folder, executor.hardware)
    session.is_checked = True


def _checked(
    loaded: LoadedJob, stages: Sequence[str], listener: ProgressListener, out: Path | None, session: Session
) -> tuple[Location, Path, Executor, Inputs]:
    """Where a run writes, its executor and its inputs, once nothing speaks against it that needs no lock."""
    # Workers may run elsewhere: their tasks must not depend on the working directory.
    location = Location(loaded.store if loaded.store.startswith("s3://") else str(Path(loaded.store).absolute()))
    location.check()
    folder = location.beside(out, loaded.base)
    check_places(location, folder)
    tell_detail(f"store {location.address}; manifest, log and pictures in {folder}; cache in {cache_dir()}")
    refuse_if_held(location, listener.say)
    refuse_foreign(location, loaded.job.name)
    check_place(loaded, location, listener)
    executor = session.executor(loaded, listener)
    check_settings(loaded, stages, executor)
    loads = not LOADING.isdisjoint(stages) and not session.is_checked
    inputs = check_job(loaded, listener, loads_models=loads, find=session.find)
    for name, source in inputs.sources.items():
        tell_detail(f"{name}: read from {source.location}")
    if "extract" not in stages:
        refuse_unready(inputs, location, folder, stages)
    if "render" in stages:
        refuse_stale(inputs, location, stages)
    return location, folder, executor, inputs


def _run_stages(
    loaded: LoadedJob,
    stages: Sequence[str],
    listener: RunLog,
    out: Path | None,
    overwrite: bool,
    session: Session,
) -> Path:
    location, folder, executor, inputs = _checked(loaded, stages, listener, out, session)
    before = Before.of(location, folder)
    with store_lock(location, listener.say) as held:
        if "extract" in stages and not overwrite:
            refuse_losses(inputs, held, folder, executor.hardware)
        try:
            _run_locked(inputs, stages, executor, held, folder, listener, overwrite)
        except InputError as error:
            listener.close()
            if not before.restore(held.hold):
                # Status 2 would promise that nothing was written.
                raise RunError(str(error), hint=error.hint) from error
            raise
    return folder


def _run_locked(
    inputs: Inputs,
    stages: Sequence[str],
    executor: Executor,
    location: Location,
    folder: Path,
    listener: RunLog,
    overwrite: bool,
) -> None:
    """The run once nothing speaks against it, and its log."""
    make_folder(folder)
    listener.open(folder, *_heading(inputs.loaded, stages, folder))
    try:
        _run_logged(inputs, stages, executor, location, folder, listener, overwrite)
    except BaseException as error:
        listener.end(error)
        raise
    listener.end(None)


def _heading(loaded: LoadedJob, stages: Sequence[str], folder: Path) -> list[str]:
    """First lines of a run's log: what lies above them, where another run wrote there, and what this one does."""
    versions = installed_versions(("drillcore", "torch", "transformers"))
    software = ", ".join(
        [*(f"{name} {number}" for name, number in versions.items()), f"Python {platform.python_version()}"]
    )
    lines = [f"{', '.join(stages)} of {loaded.source}, with {software}"]
    earlier = read_manifest(folder / "manifest.json").get("status")
    if earlier is None:
        return lines
    ended = "is done" if earlier == "done" else "did not come to its end and is resumed"
    return [f"another run begins; the one above {ended}", *lines]


def _run_logged(
    inputs: Inputs,
    stages: Sequence[str],
    executor: Executor,
    location: Location,
    folder: Path,
    listener: RunLog,
    overwrite: bool,
) -> None:
    """The run itself."""
    loaded = inputs.loaded
    manifest = Manifest(folder / "manifest.json", loaded)
    version = manifest.facts["versions"].get("drillcore", "")
    store = StoreWriter(location, loaded.job.name, version, listener.say, begin=False, mend="extract" in stages)
    manifest.write("running")
    manifest.record("executor", **executor.describe())
    for name, commit in {p.dataset.of: p.rows.commit for p in inputs.pairs}.items():
        if commit:
            manifest.record("datasets", name, commit=commit)
    tell_detail(f"executor: {executor.describe()}")
    context = Context(inputs, store, executor, manifest, listener, folder, overwrite)
    try:
        groups = [p.path for p in inputs.pairs]
        folders = {folder, location.bookkeeping}
        if "extract" in stages:
            discard_damage(store, groups, folders, listener)
        else:
            refuse_damage(store, groups, folders, listener, whole=set(stages) == {"render"})
        store.begin()
        record_wanted(store, inputs)
        _run_each(stages, context)
        store.finish()
    except BaseException as error:
        # On a full disk this fails too, and must not hide the first error. With the store the manifest is lost too.
        with suppress(RunError):
            _check(location.hold)
            manifest.write(_ending(error))
        raise
    _check(location.hold)
    manifest.write("done")


def _check(hold: Hold | None) -> None:
    """Raise CommitError where the store, and what lies beside it, is another run's by now."""
    if hold is not None:
        hold.check()


@dataclass(frozen=True)
class Before:
    """What there was at a store's place before a run: to remove what a refused run created, and nothing else.

    is_new: whether the store does not exist yet. missing: folders around it that do not, the deepest first. files:
    bytes of those that a run writes beside the store, None for one that does not exist.
    """

    location: Location
    is_new: bool
    missing: tuple[Path, ...]
    files: dict[Path, bytes | None]

    @classmethod
    def of(cls, location: Location, folder: Path) -> Before:
        """What there is now."""
        beside = [place.absolute() for place in dict.fromkeys((folder, location.bookkeeping))]
        files = [place / name for place in beside for name in ("manifest.json", "lock", *FILES)]
        missing = {place for start in beside for place in (start, *start.parents) if not place.exists()}
        return cls(
            location,
            not location.is_s3 and not location.path.exists(),
            tuple(sorted(missing, key=lambda place: -len(place.parts))),
            {path: path.read_bytes() if path.exists() else None for path in files},
        )

    def restore(self, hold: Hold | None) -> bool:
        """Remove a new store that holds no state, and what lies beside it; returns whether that was done.

        Raises CommitError where the store is another run's by now.
        """
        if not self.is_new or any(self.location.path.glob("*/*/hidden_states/c/*/*/*")):
            return False
        _check(hold)
        shutil.rmtree(self.location.path.resolve(), ignore_errors=True)
        for path, data in self.files.items():
            if data is not None:
                path.write_bytes(data)
            else:
                path.unlink(missing_ok=True)
        for place in self.missing:
            with suppress(OSError):  # something else was put there meanwhile
                place.rmdir()
        return True


def _run_each(stages: Sequence[str], context: Context) -> None:
    """Run the stages; what failed for some groups of one does not keep the others from the next."""
    failed: list[PartFailed] = []
    timekeeper = Timekeeper(context, stages)
    for stage in stages:
        _check(context.store.location.hold)
        timekeeper.begin(stage)
        started = time.perf_counter()
        try:
            load_stage(stage)(context)
            timekeeper.end(stage)
        except PartFailed as error:
            failed.append(error)
            if stage != stages[-1]:  # what is raised below says it all
                context.listener.warn(str(error))
            if not any(is_whole(context.store.dataset(p.model.group, p.dataset.name)) for p in context.inputs.pairs):
                break  # nothing is left for the next stage
        finally:
            tell_detail(f"stage {stage}: {time.perf_counter() - started:.1f} s")
    if failed:
        hints = " ".join(dict.fromkeys(e.hint for e in failed if e.hint))
        raise PartFailed("\n".join(map(str, failed)), hint=hints) from failed[0].__cause__


def _ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "failed: " + (str(error) if isinstance(error, DrillcoreError) else repr(error))
