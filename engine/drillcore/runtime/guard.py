"""Refuses, before anything is written, a run that would take away what is committed or work on what is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from zarr.errors import GroupNotFoundError

from drillcore.backends.device import Hardware, host_hardware
from drillcore.errors import DamageError, StoreError
from drillcore.job.fields import LoadedJob
from drillcore.runtime.manifest import read_manifest
from drillcore.runtime.preflight import Inputs
from drillcore.runtime.stages.extract.coordinates import former_made_from, made_from
from drillcore.runtime.stages.extract.pending import asked
from drillcore.runtime.stages.extract.standing import Standing, stand
from drillcore.runtime.wanted import wanted_of
from drillcore.store.arrays import of_label
from drillcore.store.attributes import read_attributes
from drillcore.store.freshness import stale_results
from drillcore.store.places.location import Location
from drillcore.store.reader import open_dataset
from drillcore.system.progress import ProgressListener
from drillcore.system.versions import versions


def check_place(loaded: LoadedJob, location: Location, listener: ProgressListener) -> None:
    """Look for a store at the place that was the default while it was relative to the working directory.

    Raises StoreError where only that one exists: the job would be computed again. Where the job has a store at its
    place too, or a job file in the working directory has the other one, a line names it.
    """
    former = loaded.former_store
    if former is None or not (Path(former) / "zarr.json").exists():
        return
    what = f"there is a store at {former}, where this job's store was while its place followed the working directory"
    owner = Path.cwd() / Path(loaded.source).name
    if location.path.exists() or owner.exists():
        listener.warn(f"{what}; this run does not use it, its store is {location.address}")
        return
    beside = Location(former).beside()
    raise StoreError(
        f"{what}; now it is {location.address}, relative to the job file",
        hint=f"Move {former} there (and {beside}, its manifest and pictures), or name it with --store or `store:`.",
    )


def refuse_losses(inputs: Inputs, location: Location, folder: Path, hardware: Callable[[], Hardware]) -> None:
    """Raise StoreError where extraction would take away committed states, or compute them again; only reads."""
    losses = [s.loss for s in _standings(inputs, location, folder, hardware) if s.loss is not None]
    if losses:
        lines = "\n".join(f"  {loss}" for loss in losses)
        raise StoreError(
            f"the job changed: in the store {location.address} this run would take away or compute again\n{lines}",
            hint="--overwrite does so. To keep them, undo the change or name another store (--store, `store:`).",
        )


def refuse_unready(inputs: Inputs, location: Location, folder: Path, stages: Sequence[str]) -> None:
    """Raise StoreError where stages after extraction would work on states that are not the job's; only reads.

    States that are not extracted yet are no reason: a stage goes on with the groups that are whole.
    """
    if not location.is_s3 and not location.path.exists():
        raise StoreError(
            f"there is no store at {location.address}", hint=f"Run `drillcore extract {inputs.loaded.source}` first."
        )
    extract = inputs.loaded.job.extract
    wrong = []
    for standing in _standings(inputs, location, folder, lambda: host_hardware(extract)):
        wanted, stored = standing.shape.num_sentences, standing.stored
        if standing.loss is not None:
            wrong.append(f"{standing.path} holds other states: {'; '.join(standing.loss.reasons)}")
        elif stored is not None and stored.num_sentences != wanted:
            wrong.append(f"{standing.path} holds {stored.num_sentences:,} sentences, the job has {wanted:,}")
        elif stored is not None and _has_other_columns(location, standing):
            wrong.append(f"{standing.path} holds other labels or kept columns; extracting computes no state for that")
    if wrong:
        raise StoreError(
            f"{', '.join(stages)}: the store {location.address} does not hold the job's states\n"
            + "\n".join(f"  {line}" for line in wrong),
            hint="Run `drillcore run` or `drillcore extract` on the job first.",
        )


def _has_other_columns(location: Location, standing: Standing) -> bool:
    recorded = read_attributes(location.open(read_only=True), standing.path).get("columns_made_from")
    return recorded not in (made_from(standing.pair), former_made_from(standing.pair))


def refuse_stale(inputs: Inputs, location: Location, stages: Sequence[str]) -> None:
    """Raise StoreError where a picture would show a result that is not of the states, labels or settings beside it.

    A result that the job does not ask for any more is not drawn, and no reason.
    """
    job, wrong, remedies = inputs.loaded.job, [], dict[str, None]()
    asked = {"separation": "measure", job.project.method: "project"}
    for pair in inputs.pairs:
        predicted = {"prediction": "predict"} if pair.dataset.expected_next else {}
        measured = {of_label("separation", label): "measure" for label in pair.dataset.more_labels}
        try:
            group = open_dataset(location.address, pair.path)
            why = stale_results(group, wanted_of(job, pair.dataset))
        except (GroupNotFoundError, FileNotFoundError, ValueError, KeyError, TypeError, DamageError):
            continue  # missing or damaged: the run says so
        for name, stage in {**asked, **measured, **predicted}.items():
            if name in why and stage not in stages:
                wrong.append(f"  {pair.path}: {name}: {why[name]}")
                remedies[f"`drillcore {stage}`"] = None
    if wrong:
        raise StoreError(
            f"the store {location.address} has results that do not belong to what they would be drawn with\n"
            + "\n".join(wrong),
            hint=f"Run {' and '.join(remedies)} (or `drillcore run`) on the job first.",
        )


def _standings(inputs: Inputs, location: Location, folder: Path, hardware: Callable[[], Hardware]) -> list[Standing]:
    """How every group of the job stands; the hardware is only asked for where a store exists."""
    if not location.is_s3 and not (location.path / "zarr.json").exists():
        return []  # the lock has made the folder
    store, earlier = location.open(read_only=True), read_manifest(folder / "manifest.json").get("versions", {})
    found = []
    here, packages = hardware(), versions()
    for name in inputs.sources:
        request = asked(inputs, name, read_attributes(store, name), here, packages, earlier)
        found += [stand(request, pair, store) for pair in inputs.of_model(name)]
    return found
