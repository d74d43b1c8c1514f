"""Makes what trials share: a warmed process, the finished place, donors of other versions, what readers show."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torture.drill import drill, forked, warm_up
from torture.job import COUNTS, VERSIONS, Place, make_models, write_inputs
from torture.readers import read_all
from torture.trial import World

# A trial that takes longer has no end; the whole job takes a few seconds.
SECONDS = 240.0


def scratch_folder() -> Path:
    """A new folder, in memory where there is room: thousands of copies are made in it."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    room = os.statvfs(memory).f_bavail * os.statvfs(memory).f_frsize if usable else 0
    return Path(tempfile.mkdtemp(prefix="torture-", dir=memory if room > 2**30 else None))


def finished(place: Place, models: dict[str, Path], version: str, backend: str, method: str) -> Place:
    """A place where the job of one version of the inputs has run to its end."""
    write_inputs(place, models, version, backend, method)
    place.enter()
    outcome = drill("run", "job.yaml")
    assert outcome.status == 0, outcome.said
    return place


def make_world(
    scratch: Path, backend: str, method: str, versions: Sequence[str] = VERSIONS[1:], *, thorough: bool = True
) -> World:
    """Run the job once in this process, which warms it, and once in a fork for each other version of its inputs."""
    warm_up()
    models = make_models(scratch / "models")
    base = finished(Place(scratch / "base"), models, "first", backend, method)
    donors: dict[str, Path] = {}
    for version in versions:
        place = Place(scratch / version)
        if version == "rows":
            base.copy(place.folder)  # rows that are added leave what was there
        forked(lambda p=place, v=version: str(finished(p, models, v, backend, method).folder), 600)
        donors[version] = place.folder
    base.enter()
    shown = read_all(f"{model}/{dataset}" for model in models for dataset in COUNTS)
    assert all(each.outcome.status == 0 for each in shown), [each.outcome for each in shown]
    return World(base, donors, models, backend, method, SECONDS, thorough, {each.reader: each for each in shown})
