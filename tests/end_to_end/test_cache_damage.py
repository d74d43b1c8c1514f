"""A finished store stays as it is whatever happens to the cache: what is wrong there is said and made again."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from drillcore.cli.main import app
from drillcore.errors import StoreError
from drillcore.system import cached
from support.damage import damages, restore
from support.runs import sentences

KINDS = ("continuations", "digests", "rows", "tokens")


@pytest.fixture
def job(models, tmp_path, monkeypatch, seed):
    """Runs the extraction of two datasets that share a model; the store's files, and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Digests are remembered of files that were just written, too.
    monkeypatch.setattr(cached, "SETTLED_SECONDS", -3600.0)
    shutil.copytree(models(), tmp_path / "model")
    for number, name in enumerate("de"):
        lines = [json.dumps({**row, "next": " the"}) for row in sentences(seed + number, 48)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    about = {"label": "label", "expected_next": "next", "cannot_follow": "skip"}
    described = {
        "store": "s.zarr",
        "models": [{"id": "./model", "as": "m"}],
        "datasets": [{"name": name, "path": f"{name}.jsonl", **about} for name in "de"],
        "extract": {"threads": 1, "shard_sentences": 16, "block_sentences": 16},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")

    def run(error=None):
        done = CliRunner().invoke(app, ["extract", "job.yaml"])
        if error is not None:
            assert isinstance(done.exception, StoreError) and error in str(done.exception), done.output
            return None
        assert done.exit_code == 0, (done.output, done.exception)
        files = {p: p.read_bytes() for p in sorted((tmp_path / "s.zarr").rglob("*")) if p.is_file()}
        return files, done.output

    return run


def entries(tmp_path):
    return {
        kind: sorted(p for p in (tmp_path / "cache" / "drillcore" / kind).iterdir() if p.suffix == ".entry")
        for kind in KINDS
    }


def test_a_flipped_bit_in_cached_token_ids_recomputes_nothing(job, tmp_path, seed):
    files, out = job()
    assert "cache:" not in out
    draw = random.Random(seed)
    path = draw.choice(entries(tmp_path)["tokens"])
    raw = path.read_bytes()
    for place in (0, 7, *draw.sample(range(len(raw)), 3), len(raw) - 1):
        path.write_bytes(bytes([*raw[:place], raw[place] ^ 1 << draw.randrange(8), *raw[place + 1 :]]))
        again, out = job()
        assert again == files and "all 96 sentences are up to date" in out, place
        assert out.count("cache:") == 1 and f"{path} (token ids) is damaged; it is made again" in out
        assert path.read_bytes() == raw


def test_whatever_happens_to_an_entry_the_run_says_it_once_and_changes_nothing(job, tmp_path, seed):
    files, _ = job()
    draw, found = random.Random(seed), entries(tmp_path)
    assert all(len(paths) > 1 for paths in found.values())
    for paths in found.values():
        path, other = draw.sample(paths, 2)
        raw = path.read_bytes()
        kinds = [*damages(raw, other.read_bytes(), draw)]
        for name, damage in [*draw.sample(kinds, 4), ("gone", os.unlink)]:
            damage(path)
            again, out = job()
            assert again == files and "all 96 sentences are up to date" in out, (path, name)
            assert out.count("cache:") == (0 if name == "gone" else 1), (path, name, out)
            restore(path, raw)
    for kind in KINDS:
        shutil.rmtree(tmp_path / "cache" / "drillcore" / kind)
        (tmp_path / "cache" / "drillcore" / kind).mkdir()
    assert job()[0] == files


def test_an_entry_of_a_whole_cache_of_another_version_is_made_again(job, tmp_path, monkeypatch):
    files, _ = job()
    paths = [path for found in entries(tmp_path).values() for path in found]
    monkeypatch.setattr(cached, "FORMAT", cached.FORMAT + 1)
    again, out = job()
    # Unless the machine was busy with something else, the run has kept how long it took: an entry more.
    ending = " is of another version; it is made again"
    said = [line.split(" (")[0] for line in out.splitlines() if line.endswith(ending) and "/rates/" not in line]
    assert again == files and sorted(said) == sorted(f"cache: {path}" for path in paths)
    assert "cache:" not in job()[1]


def test_weights_that_change_with_size_and_time_kept_are_noticed(job, tmp_path):
    job()
    path = tmp_path / "model" / "model.safetensors"
    raw, old = path.read_bytes(), path.stat()
    for way in ("in place", "renamed"):
        changed = path if way == "in place" else path.with_name("other")
        changed.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        os.utime(changed, ns=(old.st_atime_ns, old.st_mtime_ns))
        changed.replace(path)
        job(error="the weights of the model changed")
        path.write_bytes(raw)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert "all 96 sentences are up to date" in job()[1]
