"""Where the files of a job are: a link's own name counts, and what it points to is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from drillcore.job.fields import Job, LoadedJob
from drillcore.job.file import load_job
from drillcore.store.places.location import Location
from drillcore.texts.formats import format_of
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches


def job_of(folder: Path, path: str, store: str | None = None) -> LoadedJob:
    job = {"models": ["m"], "datasets": {"d": path}, **({"store": store} if store else {})}
    return LoadedJob(job=Job.model_validate(job), base=folder, source=str(folder / "job.yaml"))


@pytest.mark.parametrize("target", ["blobs/1f3ac0", "blobs/1f3a.txt", "blobs/1f3a.parquet"])
def test_a_links_own_name_says_what_kind_of_file_it_is(tmp_path: Path, target: str) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / target).write_bytes(b'{"text": "a b"}\n')
    (tmp_path / "snapshot" / "train.jsonl").symlink_to(Path("..") / target)
    (tmp_path / "again.jsonl").symlink_to("snapshot/train.jsonl")
    (tmp_path / "texts").symlink_to("snapshot")
    for named in ("snapshot/train.jsonl", "again.jsonl", "texts/train.jsonl", "texts/../snapshot/train.jsonl"):
        loaded = job_of(tmp_path, named)
        dataset = loaded.job.datasets[0]
        path = loaded.path(dataset)
        assert format_of(path).kind == "jsonl" and path.is_absolute() and ".." not in path.parts
        (batch,) = read_batches(path, dataset, Problems())
        assert batch.to_pydict() == {"text": ["a b"]}


def test_a_store_is_called_by_its_own_name(tmp_path: Path) -> None:
    """Pictures and report lie beside the link that the job names, not among the objects of a data versioning tool."""
    (tmp_path / "objects" / "1f3a").mkdir(parents=True)
    (tmp_path / "cities.zarr").symlink_to("objects/1f3a")
    loaded = job_of(tmp_path, "a.txt", "cities.zarr")
    assert loaded.store == str(tmp_path / "cities.zarr")
    assert Location(loaded.store).beside() == tmp_path / "cities"
    (tmp_path / "job.yaml").write_text("models: [m]\ndatasets: {d: a.txt}\n", encoding="utf-8")
    named = load_job(tmp_path / "job.yaml", store=str(tmp_path / "objects" / ".." / "cities.zarr"))
    assert named.store == loaded.store
