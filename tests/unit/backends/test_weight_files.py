"""Which files are read, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from drillcore.backends.source import locate
from drillcore.backends.transformers.fit import examine
from drillcore.backends.weight_files import read_headers, weight_files
from drillcore.errors import ModelError
from drillcore.job.model import Model
from support.checkpoints import INDEX, WEIGHTS, copied, read_index, rewrite, split, write_index


@pytest.fixture
def llama(models, tmp_path) -> Path:
    return copied(models("llama"), tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        examine(locate(Model(id=str(folder)), Path("/")))
    assert refused.value.hint
    return str(refused.value)


def test_headers_tell_names_shapes_and_types(llama):
    tensors = read_headers("m", weight_files("m", llama))
    stored = load_file(llama / WEIGHTS)
    assert {n: t.shape for n, t in tensors.items()} == {n: tuple(t.shape) for n, t in stored.items()}
    assert {t.dtype for t in tensors.values()} == {"F32"}


def test_shards_are_read_as_one_file(llama):
    before = set(read_headers("m", weight_files("m", llama)))
    assert [f.name for f in weight_files("m", llama)] == [WEIGHTS]
    shards = split(llama)
    assert [f.name for f in weight_files("m", llama)] == shards
    assert set(read_headers("m", weight_files("m", llama))) == before
    examine(locate(Model(id=str(llama)), Path("/")))


def test_a_shard_that_the_index_leaves_out_is_named(llama):
    shards = split(llama)
    index = read_index(llama)
    index["weight_map"] = {n: s for n, s in index["weight_map"].items() if s != shards[1]}
    write_index(llama, index)
    assert f"{shards[1]} lies beside the files, but {INDEX} does not name it" in refusal(llama)


def test_a_shard_that_is_not_there_is_named(llama):
    shards = split(llama)
    (llama / shards[1]).unlink()
    assert f"{INDEX} names {shards[1]}, not to be found" in refusal(llama)


def test_shards_without_an_index_are_refused(llama):
    split(llama)
    (llama / INDEX).unlink()
    assert "which say what to read" in refusal(llama)


@pytest.mark.parametrize("entries", [[], {}, {"weight_map": 3, "metadata": {}}, {"weight_map": {"a": "b"}}])
def test_an_index_of_another_shape_is_refused(entries, llama):
    split(llama)
    write_index(llama, entries)
    assert "cannot be read as an index" in refusal(llama)


def test_a_name_in_two_shards_must_have_one_value(llama):
    first, second, _ = split(llama)
    name, value = next(iter(load_file(llama / second).items()))
    rewrite(llama, lambda tensors: tensors | {name: value}, first)
    examine(locate(Model(id=str(llama)), Path("/")))
    rewrite(llama, lambda tensors: tensors | {name: value + 1}, first)
    assert f"hold different values of {name}" in refusal(llama)


@pytest.mark.parametrize("cut", [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: bytes(len(b))])
def test_a_damaged_file_is_named(cut, llama):
    path = llama / WEIGHTS
    path.write_bytes(cut(path.read_bytes()))
    assert f"{path} is cut off or damaged" in refusal(llama)


def test_a_pointer_of_git_lfs_is_told_from_damage(llama):
    (llama / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    assert "is a pointer of Git LFS" in refusal(llama)


def test_pickled_weights_are_never_read(llama):
    (llama / WEIGHTS).rename(llama / "pytorch_model.bin")
    assert "no safetensors weights" in refusal(llama)


def test_a_distributed_checkpoint_is_never_read(llama):
    (llama / ".metadata").write_bytes(b"\x80\x04N.")
    assert "pickled" in refusal(llama)
