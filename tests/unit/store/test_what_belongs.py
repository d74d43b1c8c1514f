"""Whatever does not belong to a store: every reader refuses it, and `verify` finds it. Fresh exchanges each time."""

from __future__ import annotations

import json
import random
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from drillcore.errors import DrillcoreError
from drillcore.store.canaries import FACTS, Canaries, write_canaries
from drillcore.store.checks.store import verify
from drillcore.store.layout import choose_shape
from drillcore.store.places.location import Location
from drillcore.store.record import BlockPart
from drillcore.store.tree import open_tree
from drillcore.store.writer import StoreWriter

SHAPE = choose_shape(10, [0, 1, 2], ["embed", "block_1", "final_norm"], 8, "float32", 4)
COLUMNS = [("text", "string"), ("label", "string"), ("n_tokens", "int32"), ("weight", "float64")]
GROUPS = (("m", "d"), ("m", "e"), ("n", "d"))


def write_group(store, model, dataset, seed):
    """A whole group with random contents."""
    draw = np.random.default_rng(seed)
    writer = store.dataset(model, dataset)
    writer.ensure(SHAPE, COLUMNS)
    prints = [draw.bytes(32).hex() for _ in range(SHAPE.num_shards)]
    writer.plan_fingerprints(prints)
    columns = {
        "sentence": np.arange(10),
        "text": [f"text {k}" for k in draw.permutation(10)],
        "label": [str(k) for k in draw.integers(0, 9, 10)],
        "n_tokens": draw.integers(1, 9, 10),
        "weight": draw.normal(size=10),
    }
    writer.write_columns(str(seed), iter([(0, columns)]))
    for shard in range(SHAPE.num_shards):
        first, stop = SHAPE.bounds(shard)
        states_SKH = draw.normal(size=(stop - first, 3, 8)).astype(np.float32)
        block = [BlockPart(0, 10)]
        writer.commit(first, shard, states_SKH, np.abs(states_SKH).max(axis=(0, 2)), prints[shard], block)
    for name, shape in {"layer_cka": (3, 3), "umap_raw": (3, 10, 2), "umap": (3, 10, 2)}.items():
        values = draw.normal(size=shape).astype(np.float32)
        writer.write_results(f"{name} {seed}", {name: values}, {name: {"seed": seed}})
    return writer


def write_store(place: Path, seed: int) -> Path:
    store = StoreWriter(Location(str(place)), "job", "0")
    store.set_groups(["/".join(group) for group in GROUPS])
    for number, (model, dataset) in enumerate(GROUPS):
        write_group(store, model, dataset, seed + number)
    for model in ("m", "n"):
        states = np.random.default_rng(seed + len(model)).normal(size=(4, 3, 8)).astype(np.float32)
        write_canaries(store.model(model), Canaries(states, {name: f"{name} {model} {seed}" for name in FACTS}))
    store.finish()
    return place


def everything(place: Path) -> dict[str, bytes]:
    """All that a reader shows: arrays and attributes."""
    tree, found = open_tree(str(place), internals=True), {}
    for node in tree.subtree:
        found[node.path] = json.dumps(node.attrs, sort_keys=True).encode()
        for name, variable in node.to_dataset(inherit=False).variables.items():
            values = np.asarray(variable.values)
            found[f"{node.path}/{name}"] = repr(values.tolist()).encode()
    return found


def shown(place: Path) -> dict[str, bytes] | None:
    """The same; None where it is refused."""
    try:
        return everything(place)
    except DrillcoreError:
        return None


def findings(place: Path) -> list[str]:
    try:
        return [str(finding) for finding in verify(str(place))]
    except DrillcoreError as error:
        return [str(error)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store, one with other contents, and what a reader shows of the first."""
    folder, seed = tmp_path_factory.mktemp("stores"), random.getrandbits(30)
    print(f"seed {seed}")
    place, other = write_store(folder / "s.zarr", seed), write_store(folder / "other.zarr", seed + 99)
    assert findings(place) == [] == findings(other)
    return place, other, everything(place)


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def kind(key: str) -> tuple[str, ...]:
    """What tells files that can take each other's place: name of the array, and chunk or not."""
    parts = Path(key).parts
    return ("zarr.json", str(len(parts))) if parts[-1] == "zarr.json" else (parts[-1 - len(parts[parts.index("c") :])],)


def check(place: Path, truth: dict[str, bytes], what: str) -> None:
    """After a change: `verify` finds it, and a reader refuses it or shows what is true."""
    assert findings(place), f"not found by verify: {what}"
    now = shown(place)
    assert now is None or now == truth, f"shown: {what}: {[k for k in truth if now.get(k) != truth[k]]}"


@pytest.mark.parametrize("part", range(4))
def test_files_of_one_kind_that_were_exchanged(stores, tmp_path, part):
    place, _, truth = stores
    pairs = [
        (a, b)
        for a, b in combinations(files(place), 2)
        if (kind(a) == kind(b) or {kind(a), kind(b)} == {("umap",), ("umap_raw",)})
        and (place / a).read_bytes() != (place / b).read_bytes()
    ]
    copy = tmp_path / "copy.zarr"
    shutil.copytree(place, copy)
    for a, b in random.sample(pairs, 25):
        one, two = (place / a).read_bytes(), (place / b).read_bytes()
        (copy / a).write_bytes(two), (copy / b).write_bytes(one)
        check(copy, truth, f"{a} <-> {b}")
        (copy / a).write_bytes(one), (copy / b).write_bytes(two)
    assert findings(copy) == []


@pytest.mark.parametrize("name", ["hidden_states", "layer_absmax", "shard_record", "shard_fingerprint", None])
def test_the_files_of_a_shard_of_another_store(stores, tmp_path, name):
    """Each alone, and all but the plan together."""
    place, other, truth = stores
    shutil.copytree(place, tmp_path / "copy.zarr")
    names = [name] if name else ["hidden_states", "layer_absmax", "shard_record", "shard_fingerprint"]
    for key in files(place):
        if any(f"m/d/{n}/c/1" in key for n in names):
            (tmp_path / "copy.zarr" / key).write_bytes((other / key).read_bytes())
    check(tmp_path / "copy.zarr", truth, str(name))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 4))])
def test_files_that_were_damaged(stores, tmp_path, part):
    place, _, truth = stores
    copy = tmp_path / "copy.zarr"
    shutil.copytree(place, copy)
    for key in random.sample(files(place), 20):
        raw = bytearray((place / key).read_bytes())
        spot = random.randrange(len(raw))
        flipped = bytearray(raw)
        flipped[spot] ^= 1 << random.randrange(7)
        for what, data in (("flipped", flipped), ("cut", raw[:spot]), ("zeroed", bytes(len(raw))), ("removed", None)):
            (copy / key).write_bytes(data) if data is not None else (copy / key).unlink()
            check(copy, truth, f"{key} {what} at {spot}")
        (copy / key).write_bytes(raw)
    assert findings(copy) == []


@pytest.mark.parametrize(
    "path", ["m", "m/d", "n/d/umap", "m/e/label", "m/d/shard_record", "m/_canary_states", "m/d/layer"]
)
def test_what_is_missing(stores, tmp_path, path):
    place, _, truth = stores
    shutil.copytree(place, tmp_path / "copy.zarr")
    shutil.rmtree(tmp_path / "copy.zarr" / path)
    check(tmp_path / "copy.zarr", truth, path)


@pytest.mark.parametrize(
    "path", ["thesis.txt", "x/y", "m/x", "m/d/x", "m/d/umap/x", "m/d/text/c/9", "m/d/pca/zarr.json"]
)
def test_what_is_foreign(stores, tmp_path, path):
    place, _, truth = stores
    shutil.copytree(place, tmp_path / "copy.zarr")
    (tmp_path / "copy.zarr" / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "copy.zarr" / path).write_bytes(b"precious")
    check(tmp_path / "copy.zarr", truth, path)
    assert shown(tmp_path / "copy.zarr") == truth


def test_groups_that_were_exchanged(stores, tmp_path):
    place, _, truth = stores
    copy = tmp_path / "copy.zarr"
    for a, b in (("m/d", "m/e"), ("m/d", "n/d"), ("m", "n")):
        shutil.copytree(place, copy)
        (copy / a).rename(copy / "x")
        (copy / b).rename(copy / a)
        (copy / "x").rename(copy / b)
        check(copy, truth, f"{a} <-> {b}")
        assert shown(copy) is None
        shutil.rmtree(copy)


def test_an_older_group_under_the_present_root(stores, tmp_path):
    place, other, truth = stores
    shutil.copytree(place, tmp_path / "copy.zarr")
    shutil.rmtree(tmp_path / "copy.zarr" / "m/d")
    shutil.copytree(other / "m/d", tmp_path / "copy.zarr" / "m/d")
    check(tmp_path / "copy.zarr", truth, "m/d")
    assert shown(tmp_path / "copy.zarr") is None


def test_a_folder_in_place_of_a_shard(stores, tmp_path):
    place, _, truth = stores
    copy = tmp_path / "copy.zarr"
    shutil.copytree(place, copy)
    shard = copy / "m/d/hidden_states/c/0/0/0"
    shard.unlink()
    shard.mkdir()
    check(copy, truth, "a folder")
    assert shown(copy) is None


def _says_the_same(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize(
    "key", ["m/d/zarr.json", "m/zarr.json", "zarr.json", "m/d/umap/zarr.json", "m/d/hidden_states/zarr.json"]
)
def test_one_character_of_a_document(stores, tmp_path, key):
    """Keys, numbers, words: consolidated metadata, labels, controls, codec names, shapes."""
    place, _, truth = stores
    copy = tmp_path / "copy.zarr"
    shutil.copytree(place, copy)
    raw = (place / key).read_bytes()
    spots = [i for i, byte in enumerate(raw) if chr(byte).isalnum()]
    for spot in random.sample(spots, 25):
        changed = bytearray(raw)
        changed[spot] = ord(random.choice([c for c in "abcxyz019" if ord(c) != raw[spot]]))
        if key == "zarr.json" and _says_the_same(changed, raw):
            continue  # a last digit that no number of 64 bits has; the root records what it says, not its own bytes
        (copy / key).write_bytes(changed)
        check(copy, truth, f"{key} at {spot}: {raw[spot - 20 : spot + 20]!r}")
    (copy / key).write_bytes(raw)
