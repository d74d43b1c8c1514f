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
        path = loaded.paths(dataset)[0]
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


def test_stores_whose_names_differ_after_a_dot_have_folders_of_their_own(tmp_path: Path) -> None:
    names = ("exp.1", "exp.2", "exp.zarr", "exp", "exp.1.zarr")
    assert len({Location(str(tmp_path / name)).beside() for name in names}) == len(names)
    former = tmp_path / "exp"
    former.mkdir()
    (former / "manifest.json").write_text(f'{{"store": "{tmp_path}/exp.1"}}')
    assert Location(str(tmp_path / "exp.1")).beside() == former
    assert Location(str(tmp_path / "exp.2")).beside() == tmp_path / "exp.2.run"


class TestFoldersOfBuckets:
    def test_stores_of_equal_name_have_folders_of_their_own(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        names = ("s3://one/x.zarr", "s3://two/x.zarr", "s3://one/a/x.zarr", "s3://one/b/x.zarr", "s3://one/x.other")
        folders = {Location(name).beside(base=tmp_path) for name in names}
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
        folders.add(Location(names[0]).beside(base=tmp_path))
        assert len(folders) == len(names) + 1
        assert all(f.parent == tmp_path / "runs" and f.name.startswith("x-") for f in folders)
        assert Location("s3://one/x.zarr/").beside() == Location("s3://one/x.zarr").beside()

    def test_the_folder_of_an_earlier_version_stays_that_of_its_store(self, tmp_path: Path) -> None:
        former = tmp_path / "runs" / "x"
        former.mkdir(parents=True)
        for text in ("", "[1]", "{", "null", "[" * 100_000):
            (former / "manifest.json").write_text(text)
            assert Location("s3://one/x.zarr").beside(base=tmp_path) != former
        (former / "manifest.json").write_text('{"store": "s3://one/x.zarr", "status": "done"}')
        assert Location("s3://one/x.zarr").beside(base=tmp_path) == former
        assert Location("s3://two/x.zarr").beside(base=tmp_path) != former
