"""Stores on the Hugging Face hub: pushed by the hub's own library, and read by ranges at one commit."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import drillcore
from drillcore.errors import DamageError, InputError, JobError, StoreError
from drillcore.store.places import hub
from drillcore.store.places.files import read_file
from support.hub_server import TOKEN, hub_server

pytest_plugins = ["support.small_store_fixtures"]
# Said of the hub's own library by the one that it uses.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch, tmp_path):
    with hub_server() as running:
        import huggingface_hub.constants as constants

        for name, value in {
            "HF_ENDPOINT": running.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hub"),
        }.items():
            monkeypatch.setenv(name, value)
        # What the library read from these when it was imported.
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield running


@pytest.fixture
def own_store(small_store, tmp_path):
    shutil.copytree(small_store.parent, tmp_path / "runs")
    return tmp_path / "runs" / small_store.name


def test_a_pushed_store_opens_as_the_one_it_came_from(server, small_store):
    pushed = drillcore.push(small_store, "hf://datasets/me/states")
    assert pushed.address == "hf://datasets/me/states/job.zarr" and len(pushed.commit) == 40
    repo = server.repos["me/states"]
    assert repo.private
    here = {p.relative_to(small_store).as_posix(): p.read_bytes() for p in small_store.rglob("*") if p.is_file()}
    there = {k.removeprefix("job.zarr/"): v for k, v in repo.commits[repo.head].items() if k != "README.md"}
    assert there == here and pushed.files == len(here)
    for address in (pushed.address, "hf://datasets/me/states", f"hf://datasets/me/states@{pushed.commit}/job.zarr"):
        found, local = drillcore.open(address), drillcore.open(small_store)
        for group in ("m/d", "m/d~mean", "m/d~last-3"):
            assert found[group].to_dataset().identical(local[group].to_dataset())
    # Skipped measures are NaN, which equals nothing.
    assert repr(drillcore.show(pushed.address).groups) == repr(drillcore.show(small_store).groups)
    assert repr(drillcore.measure(pushed.address, "m/d").rows) == repr(drillcore.measure(small_store, "m/d").rows)
    assert drillcore.verify(pushed.address).whole


def test_a_layer_is_read_by_ranges_of_its_shard(server, small_store):
    address = drillcore.push(small_store, "hf://datasets/me/states").address
    states = drillcore.open(address)["m/d"].hidden_states
    server.asked.clear()
    one = states.sel(layer=2).values
    asked = [(path, part) for _, path, part in server.asked if "/hidden_states/c/" in path]
    assert asked and all(part.startswith("bytes=") for _, part in asked)
    np.testing.assert_array_equal(one, drillcore.open(small_store)["m/d"].hidden_states.sel(layer=2).values)


@pytest.mark.parametrize("read", [drillcore.open, drillcore.show, drillcore.verify])
def test_nothing_small_is_asked_for_twice(read, server, small_store):
    address = drillcore.push(small_store, "hf://datasets/me/states").address
    server.asked.clear()
    read(address)
    files = [(path, part) for _, path, part in server.asked if "/resolve/" in path]
    assert 20 < len(files) == len(set(files))


def test_what_is_kept_of_the_hub_is_bounded_and_what_is_large_is_not_kept(server, small_store, monkeypatch):
    pushed = drillcore.push(small_store, "hf://datasets/me/states")
    place = hub.open_hub(pushed.address)
    keys = sorted(p.relative_to(small_store).as_posix() for p in small_store.rglob("zarr.json"))[:8]
    sizes = [(small_store / key).stat().st_size for key in keys]
    monkeypatch.setattr(hub, "KEPT_BYTES", max(sizes) - 1)
    monkeypatch.setattr(hub, "KEPT_TOGETHER", 2 * max(sizes))
    for _ in range(3):
        for key in [*keys, "no/such/file"]:
            data = read_file(place, key)
            assert data == ((small_store / key).read_bytes() if key in keys else None)
            kept = list(place._kept.values())
            assert max(sizes) not in map(len, filter(None, kept))
            assert sum(len(data or b"") for data in kept) == place._kept_bytes <= 2 * max(sizes)
    again = pickle.loads(pickle.dumps(place))
    assert again == place and again != hub.HubPlace(place.repo, "0" * 40, place.path) and not again._kept


def test_a_store_stays_what_it_was_while_it_is_read(server, own_store):
    address = drillcore.push(own_store, "hf://datasets/me/states").address
    opened = drillcore.open(address)
    repo = server.repos["me/states"]
    repo.commit({})
    np.testing.assert_array_equal(
        opened["m/d"].hidden_states.values, drillcore.open(own_store)["m/d"].hidden_states.values
    )


def test_what_an_earlier_push_left_goes_and_what_others_wrote_stays(server, own_store, small_store):
    drillcore.push(own_store, "hf://datasets/me/states", public=True)
    repo = server.repos["me/states"]
    assert not repo.private
    files = dict(repo.commits[repo.head])
    card = files["README.md"].decode()
    files["README.md"] = (card.replace("# license:", "license: mit\n# license:") + "\nMy own words.\n").encode()
    files["other.zarr/zarr.json"] = files["notes.txt"] = b"theirs"
    files["job.zarr/m/gone"] = b"old"
    repo.commit(files)
    drillcore.push(own_store, "hf://datasets/me/states")
    now = repo.commits[repo.head]
    assert "job.zarr/m/gone" not in now and now["notes.txt"] == now["other.zarr/zarr.json"] == b"theirs"
    assert now["README.md"].decode() == files["README.md"].decode()
    with pytest.raises(StoreError, match=r"has the stores (job|other)\.zarr, (job|other)\.zarr"):
        drillcore.open("hf://datasets/me/states")
    repo.commit({**now, "README.md": b"a card of my own"})
    drillcore.push(own_store, "hf://datasets/me/states/sub/folder.zarr")
    now = repo.commits[repo.head]
    assert now["README.md"] == b"a card of my own" and "sub/folder.zarr/zarr.json" in now
    assert drillcore.open("hf://datasets/me/states/sub/folder.zarr")["m/d"].sizes["sentence"] == 24


def test_the_card_warns_and_names_what_there_is(server, small_store):
    pushed = drillcore.push(small_store, "hf://datasets/me/states", dry_run=True)
    assert not server.repos and not pushed.commit
    assert "can be inverted to their texts" in pushed.card and "# license:" in pushed.card
    assert "| m | d~last-3 | 24 | 72 | 5 | 32 |" in pushed.card and "`block_k`" in pushed.card
    assert 'drillcore.open("hf://datasets/me/states/job.zarr")' in pushed.card


def test_what_is_not_finished_or_damaged_is_not_pushed(server, own_store, models, tmp_path):
    (shard,) = (own_store / "m" / "d" / "hidden_states").glob("c/*/*/*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamageError, match="is damaged and was not pushed"):
        drillcore.push(own_store, "hf://datasets/me/states")
    shutil.rmtree(own_store / "m" / "d" / "shard_fingerprint")
    with pytest.raises((StoreError, DamageError)):
        drillcore.push(own_store, "hf://datasets/me/states")
    assert not server.repos


def test_passing_faults_are_tried_again(server, small_store, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    address = drillcore.push(small_store, "hf://datasets/me/states").address
    states = drillcore.open(address)["m/d"].hidden_states
    server.failing = 2
    assert states.values.shape == (24, 5, 32) and server.failing == 0


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("hf://me/states", "is no place in a data set of the hub"),
        ("hf://datasets/me", "is no place in a data set of the hub"),
        ("hf://datasets/me/states/../x", "is no place in a data set of the hub"),
        ("hf://datasets/me/nothing", "the hub has no data set me/nothing that you may read"),
        ("hf://datasets/me/empty", "the data set me/empty has no store at its root"),
        ("hf://datasets/me/empty/x.zarr", "is not a drillcore store"),
        ("hf://datasets/me/empty@v9", "the data set me/empty has no revision v9"),
        ("hf://datasets/me/gated", "the data set me/gated is gated"),
    ],
)
def test_where_there_is_no_store(server, small_store, address, named):
    from support.hub_server import Repo

    server.repos |= {"me/empty": Repo(False), "me/gated": Repo(False, gated=True)}
    with pytest.raises(InputError, match=named):
        drillcore.open(address)


def test_without_a_token_a_private_store_is_not_there(server, small_store, monkeypatch):
    address = drillcore.push(small_store, "hf://datasets/me/states").address
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_else")
    with pytest.raises(StoreError, match="the hub has no data set me/states that you may read") as refused:
        drillcore.open(address)
    assert "HF_TOKEN" in refused.value.hint
    with pytest.raises(StoreError, match="the hub answered 401"):
        drillcore.push(small_store, "hf://datasets/me/more")


def test_nothing_runs_into_the_hub(server, small_store, tmp_path, models):
    from support.small_stores import small_job

    job = small_job(tmp_path, models())
    for store in ("hf://datasets/me/states", "hf://datasets/me/states/x.zarr"):
        with pytest.raises(JobError, match="stores are read only"):
            drillcore.run(job, store=store)
    command = [sys.executable, "-m", "drillcore"]
    refused = subprocess.run(
        [*command, "rm", "hf://datasets/me/states", "m/d"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and not list(tmp_path.glob("hf*"))
    with pytest.raises(StoreError, match="is no folder of this machine"):
        drillcore.push("s3://bucket/x.zarr", "hf://datasets/me/states")
    with pytest.raises(StoreError, match="is pushed to the main branch"):
        drillcore.push(small_store, "hf://datasets/me/states@v1")
