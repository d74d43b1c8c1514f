"""What every place of a store promises, here and in a bucket of a real S3 server; and what object storage adds."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import obstore
import pytest
import xarray as xr

from drillcore.errors import CommitError, DrillcoreError, StoreError
from drillcore.store.checks.store import verify
from drillcore.store.layout import choose_shape
from drillcore.store.places import lease
from drillcore.store.places.files import list_names, read_file, write_file
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.places.s3 import open_bucket
from drillcore.store.reader import open_root, read_layer
from drillcore.store.tree import open_tree
from drillcore.store.writer import StoreWriter
from support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Proxy, environment, s3_server

pytest_plugins = ["support.run_fixtures"]

SHAPE = choose_shape(40, [0, 2, 5], ["embed", "block_2", "final_norm"], 8, "float32", 16)
COLUMNS = [("text", "string"), ("weight", "float64")]


@pytest.fixture(scope="module")
def server():
    """The port of an S3 server."""
    pytest.importorskip("moto", reason="s3")
    with s3_server() as port:
        yield port


@pytest.fixture
def s3(server, monkeypatch):
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["folder", "s3"])
def address(request, tmp_path):
    """A place where there is nothing yet."""
    if request.param == "folder":
        return str(tmp_path / "place" / "some.zarr")
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/{tmp_path.name}/some.zarr"


def states(seed):
    return np.random.default_rng(seed).normal(size=(40, 3, 8)).astype(np.float32)


def fill(address, values, *, shards=(0, 1, 2), job="job"):
    """A store with one group, of which some shards are committed."""
    store = StoreWriter(Location(address), job, "0")
    writer = store.dataset("m", "d")
    writer.ensure(SHAPE, COLUMNS)
    writer.plan_fingerprints([f"{i + 1:02x}" * 32 for i in range(3)])
    texts = [f"text {i} ✓" for i in range(40)]
    pieces = {"sentence": np.arange(40), "text": texts, "weight": np.arange(40) / 2}
    writer.write_columns("made", iter([(0, pieces)]))
    for shard in shards:
        start, stop = SHAPE.bounds(shard)
        part = values[start:stop]
        writer.commit(start, shard, part, np.abs(part).max(axis=(0, 2)), f"{shard + 1:02x}" * 32)
    store.finish()
    return writer


def test_what_is_committed_is_read_back(address, seed):
    values = states(seed)
    fill(address, values)
    tree = open_tree(address)
    group = tree["m/d"]
    np.testing.assert_array_equal(group.hidden_states.values, values)
    np.testing.assert_array_equal(group.hidden_states.sel(layer=2).values, values[:, 1])
    np.testing.assert_array_equal(group.hidden_states[[30, 3, 3], -1, 2:5].values, values[[30, 3, 3], -1, 2:5])
    np.testing.assert_array_equal(group.hidden_states[::-3, 1].values, values[::-3, 1])
    assert group.hidden_states[17, 2, 3].values == values[17, 2, 3]
    assert group.text.values.tolist()[:2] == ["text 0 ✓", "text 1 ✓"] and group.layer.values.tolist() == [0, 2, 5]
    root = open_root(Location(address))
    np.testing.assert_array_equal(read_layer(root["m/d"], 2), values[:, 2])


def test_others_read_the_same(address, seed):
    """zarr-python and xarray by themselves, with consolidated metadata and without a warning."""
    values = states(seed)
    fill(address, values)
    for consolidated in (True, False):
        with xr.open_zarr(Location(address).open(read_only=True), group="m/d", consolidated=consolidated) as group:
            np.testing.assert_array_equal(group.hidden_states.values, values)


def test_shards_of_zarr_itself_are_read_too(address, seed):
    import zarr

    values = states(seed)
    writer = fill(address, np.zeros_like(values))
    zarr.open_group(Location(address).open(), path="m/d", mode="r+")["hidden_states"][:] = values
    np.testing.assert_array_equal(read_layer(writer.group, 1), values[:, 1])


def test_what_is_not_committed_is_nan(address, seed):
    values = states(seed)
    writer = fill(address, values, shards=(1,))
    assert writer.fingerprints() == ["", "02" * 32, ""] == writer.committed()
    found = open_tree(address)["m/d"].hidden_states.values
    assert np.isnan(found[:16]).all() and np.isnan(found[32:]).all()
    np.testing.assert_array_equal(found[16:32], values[16:32])


def test_a_retracted_shard_is_not_committed(address, seed):
    writer = fill(address, states(seed))
    writer.retract([1])
    assert [bool(p) for p in writer.fingerprints()] == [True, False, True]


def test_a_shard_that_is_missing_or_cut_short_is_not_committed(address, seed):
    writer = fill(address, states(seed))
    store = Location(address).open()
    raw = read_file(store, "m/d/hidden_states/c/0/0/0")
    write_file(store, "m/d/hidden_states/c/0/0/0", raw[:-9])
    write_file(store, "m/d/hidden_states/c/1/0/0", b"")
    assert [bool(p) for p in writer.committed()] == [False, False, True]
    assert all(writer.fingerprints())


def test_the_same_bytes_everywhere(s3, tmp_path, seed):
    places = [str(tmp_path / "some.zarr"), f"s3://{BUCKET}/{tmp_path.name}/bytes.zarr"]
    for place in places:
        fill(place, states(seed))
    stores = [Location(place).open() for place in places]
    keys = [f"m/d/{name}/c/{i}/0/0" for name in ("hidden_states",) for i in range(3)]
    keys += [f"m/d/{n}/zarr.json" for n in list_names(stores[0], "m/d") if n != "zarr.json"] + ["zarr.json"]
    for key in keys:
        assert read_file(stores[0], key) == read_file(stores[1], key), key


def test_arrays_of_another_shape_are_made_anew(address, seed):
    fill(address, states(seed))
    writer = StoreWriter(Location(address), "job", "0").dataset("m", "d")
    fewer = choose_shape(20, [0, 2], ["embed", "block_2"], 8, "float16", 16)
    writer.ensure(fewer, [])
    assert writer.committed() == ["", ""] and writer.group["hidden_states"].shape == (20, 2, 8)
    assert "text" not in writer.group and "hidden_states/c" not in list_names(writer.group.store, "m/d/hidden_states")


def test_results_and_what_they_were_made_from(address, seed):
    writer = fill(address, states(seed))
    points = np.random.default_rng(seed).normal(size=(3, 40, 2)).astype(np.float32)
    writer.write_result("umap", points, "inputs", backend="x")
    writer.write_result("axis", np.array(["x", "y"]), "inputs")
    again = StoreWriter(Location(address), "job", "0").dataset("m", "d")
    assert again.result_made_from("umap") == "inputs" and again.result_made_from("pca") == ""
    np.testing.assert_array_equal(open_tree(address)["m/d"].umap.values, points)
    again.drop_results(["axis"])
    assert again.result_made_from("umap") == "" == again.result_made_from("axis")


def test_a_place_with_something_else_is_refused(address):
    store = Location(address).open()
    if not address.startswith("s3"):
        Path(address).mkdir(parents=True)
        (Path(address) / "zarr.json").write_bytes(b'{"zarr_format": 3, "node_type": "group"}')
    write_file(store, "thesis.txt", b"precious")
    if not address.startswith("s3"):
        (Path(address) / "zarr.json").unlink()
    with pytest.raises(StoreError, match="not a drillcore store"):
        StoreWriter(Location(address), "job", "0")
    assert list_names(store, "") == ["thesis.txt"]


def test_another_job_and_another_format_are_refused(address, seed):
    fill(address, states(seed))
    with pytest.raises(StoreError, match="belongs to the job job, not other"):
        StoreWriter(Location(address), "other", "0")
    store = Location(address).open()
    document = json.loads(read_file(store, "zarr.json"))
    document["attributes"]["format"] = 2
    write_file(store, "zarr.json", json.dumps(document).encode())
    uses = (lambda: StoreWriter(Location(address), "job", "0"), lambda: open_tree(address), lambda: [*verify(address)])
    for use in uses:
        with pytest.raises(StoreError, match="has format 2, this version reads format 1"):
            use()


def test_there_is_no_store(address):
    with pytest.raises(StoreError):
        open_tree(address)


def test_consolidated_metadata_goes_before_changes_and_comes_back(address, seed):
    fill(address, states(seed))
    store = Location(address).open()
    assert "consolidated_metadata" in json.loads(read_file(store, "zarr.json"))
    opened = StoreWriter(Location(address), "job", "0")
    assert "consolidated_metadata" not in json.loads(read_file(store, "zarr.json"))
    opened.dataset("m", "e")
    opened.finish()
    assert "m/e" in json.loads(read_file(store, "zarr.json"))["consolidated_metadata"]["metadata"]


def test_the_lock_keeps_a_second_one_out_and_names_the_first(address, tmp_path):
    location, folder = Location(address), tmp_path / "beside"
    refuse_if_held(location, folder)
    assert not folder.exists()
    for _ in range(2):
        with store_lock(location, folder):
            for attempt in (lambda: refuse_if_held(location, folder), lambda: store_lock(location, folder).__enter__()):
                with pytest.raises(StoreError, match=f"another run holds the store .*process {os.getpid()} on "):
                    attempt()
        refuse_if_held(location, folder)


def test_the_lock_of_a_killed_run_is_free(address, forge, tmp_path):
    """At once, where it ran on this machine."""
    first = f"""
import os, signal
from pathlib import Path
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock
with store_lock(Location({address!r}), Path({str(tmp_path)!r}) / "beside"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert forge.run(cwd=tmp_path, first=first, env=_aws()).status == -signal.SIGKILL
    location = Location(address)
    if location.is_s3:
        assert obstore.head(open_bucket(BUCKET, ""), location.bucket_and_key[1] + ".lock")["size"] > 0
    with store_lock(location, tmp_path / "beside"):
        pass


def _aws():
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def test_a_command_fills_a_bucket_as_it_fills_a_folder_also_when_killed(new_work, s3, seed):
    """Every object of the states and fingerprints is the same, byte for byte; what was committed stays."""
    draw, work = random.Random(seed), new_work(seed=seed, count=150)
    work.finish()
    place = f"s3://{BUCKET}/{work.folder.parent.name}/killed.zarr"
    bucket = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))

    def objects():
        listed = [o for batch in obstore.list(bucket) for o in batch]
        return {o["path"]: (o["e_tag"], o["last_modified"]) for o in listed if "/c/" in o["path"]}

    def num_records():
        return len([p for p in objects() if "shard_fingerprint" in p])

    kept = {}
    for _ in range(3):
        command = work.start("--store", place, env=_aws())
        wanted = num_records() + draw.randint(1, 3)
        while not command.ended_within(0.01) and num_records() < wanted:
            pass
        command.send()
        found = objects()
        assert {p: m for p, m in found.items() if p in kept} == kept
        records = {p.split("/")[-2] for p in found if "shard_fingerprint" in p}
        kept = {p: m for p, m in found.items() if "hidden_states" in p and p.split("/")[-3] in records}
    _finish(work, place)
    assert {p: m for p, m in objects().items() if p in kept} == kept
    want = work.states()
    for path, data in want.items():
        assert obstore.get(bucket, path).bytes().to_bytes() == data, path


def _finish(work, place, first=""):
    command = work.run("--store", place, env=_aws(), first=first)
    assert command.status == 0, command.err
    return command


QUICK = """
import drillcore.store.places.s3 as s3
s3.REQUEST_SECONDS, s3.REQUEST_RETRIES, s3.RETRY_SECONDS, s3.WAITS_SECONDS = 1.0, 2, 5.0, (0.1, 0.2)
"""


@pytest.fixture
def proxy(s3, monkeypatch):
    made = Proxy(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    yield made
    made.close()


@pytest.mark.parametrize("fault", ["500", "reset", "cut", 1.6])
def test_passing_faults_are_tried_again(fault, proxy, new_work, seed):
    draw, work = random.Random(seed), new_work(seed=seed, count=64)
    work.finish()
    left, in_a_row = [12], Counter()

    def now_and_then(method, path):
        # A write that the store's server may have done already is tried three times and no more.
        fails = left[0] and draw.random() < 0.1 and in_a_row[method, path] < 2
        left[0] -= bool(fails)
        in_a_row[method, path] = in_a_row[method, path] + 1 if fails else 0
        return fault if fails else None

    proxy.fault = now_and_then
    place = f"s3://{BUCKET}/{work.folder.parent.name}/faults.zarr"
    _finish(work, place, QUICK)
    assert any(f for _, _, f in proxy.requests), "no fault was met"
    proxy.fault = lambda method, path: None
    bucket = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))
    for path, data in work.states().items():
        assert obstore.get(bucket, path).bytes().to_bytes() == data, path


@pytest.mark.parametrize("fault", ["500", "reset", 3.0])
def test_lasting_faults_end_the_run_which_can_go_on(fault, proxy, new_work, seed):
    work = new_work(seed=seed, count=64)
    place = f"s3://{BUCKET}/{work.folder.parent.name}/lasting.zarr"
    proxy.fault = lambda method, path: fault if "/hidden_states/c/2/" in path and method != "GET" else None
    failed = work.run("--store", place, env=_aws(), first=QUICK)
    assert failed.status == 1, failed.err
    assert "m/d: shard 2 (sentences 32 to 47)" in failed.err and "could not be written" in failed.err
    assert "run the same command again" in failed.err and "Traceback" not in failed.err
    tries = [r for r in proxy.requests if r[2]]
    assert 2 <= len(tries) <= 40, "retried, and with a bound"
    check_no_secret(work, failed)
    proxy.fault = lambda method, path: None
    done = _finish(work, place)
    assert done.out.count("sentences") and work.folder.joinpath("runs", "lasting", "manifest.json").exists()


def check_no_secret(work, *commands):
    texts = [c.out + c.err for c in commands]
    texts += [p.read_text(encoding="utf-8", errors="replace") for p in (work.folder / "runs").rglob("*") if p.is_file()]
    for text in texts:
        assert ACCESS_KEY not in text and SECRET_KEY not in text


def test_credentials_are_never_shown(proxy, new_work, s3):
    work = new_work(count=20)
    place = f"s3://{BUCKET}/{work.folder.parent.name}/secret.zarr"
    done = _finish(work, place)
    token = {
        **_aws(),
        "AWS_SESSION_TOKEN": SECRET_KEY + "token",
        "AWS_ENDPOINT_URL": f"http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:9",
    }
    nowhere = work.run("--store", place, env=token, first=QUICK)
    debugged = work.run("--store", place, "--debug", env=token, first=QUICK)
    assert nowhere.status == 1 and "could not be reached" in nowhere.err
    written = work.run("--store", f"s3://{ACCESS_KEY}:{SECRET_KEY}@{BUCKET}/x.zarr", env=_aws())
    assert written.status == 2 and "holds credentials" in written.err
    proxy.fault = lambda method, path: "403"
    denied = work.run("--store", place, env=_aws(), first=QUICK)
    assert denied.status == 2 and "access is denied" in denied.err and "AWS_" in denied.err
    shown = work.forge.run("show", place, cwd=work.folder, env=_aws(), first=QUICK)
    assert shown.status != 0 and "Traceback" not in shown.err
    check_no_secret(work, done, nowhere, debugged, written, denied, shown)


def test_no_bucket_and_no_server(new_work, s3):
    work = new_work(count=20)
    missing = work.run("--store", "s3://no-such-bucket/x.zarr", env=_aws(), first=QUICK)
    assert missing.status == 2 and "the bucket does not exist" in missing.err, missing.err
    env = {**_aws(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    unreachable = work.run("--store", f"s3://{BUCKET}/x.zarr", env=env, first=QUICK)
    assert unreachable.status == 1 and "could not be reached" in unreachable.err
    assert not any("fault of drillcore" in c.err or "Traceback" in c.err for c in (missing, unreachable))


class TestLease:
    @pytest.fixture
    def bucket(self, s3):
        return open_bucket(BUCKET, "")

    @pytest.fixture
    def key(self, tmp_path):
        return f"{tmp_path.name}/x.lock"

    def _left_behind(self, bucket, key, **note):
        raw = {"owner": "1", "pid": 1, "host": "elsewhere", "since": "then", "machine": "another", "process": "1 1"}
        raw |= note
        obstore.put(bucket, key, json.dumps(raw).encode())

    def test_one_of_elsewhere_holds_until_it_runs_out(self, bucket, key, monkeypatch):
        self._left_behind(bucket, key)
        with (
            pytest.raises(StoreError, match="process 1 on elsewhere, since then"),
            lease.lease(bucket, key, "s3://b/x"),
        ):
            pass
        monkeypatch.setattr(lease, "LEASE_SECONDS", -10.0)
        with lease.lease(bucket, key, "s3://b/x"):
            assert json.loads(obstore.get(bucket, key).bytes().to_bytes())["pid"] == os.getpid()
        with pytest.raises(FileNotFoundError):
            obstore.head(bucket, key)

    def test_one_without_a_readable_note_holds_too(self, bucket, key):
        obstore.put(bucket, key, b"\xff{")
        with pytest.raises(StoreError, match="left no note"), lease.lease(bucket, key, "s3://b/x"):
            pass

    def test_of_many_at_once_one_gets_it(self, bucket, key):
        got, refused, together = [], [], threading.Barrier(6)

        def take():
            together.wait()
            try:
                got.append(lease._take(bucket, key, "s3://b/x", {"owner": str(threading.get_ident()), "pid": 0}))
            except DrillcoreError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1 and len(refused) == 5

    def test_it_is_renewed(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        with lease.lease(bucket, key, "s3://b/x"):
            first = obstore.head(bucket, key)
            until = threading.Event()
            for _ in range(200):
                until.wait(0.05)
                if obstore.head(bucket, key)["last_modified"] > first["last_modified"]:
                    return
        pytest.fail("not renewed in 10 s")

    def test_one_that_was_lost_ends_the_run(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        lost = pytest.raises(CommitError, match="took the store s3://b/x over: process 1 on elsewhere")
        with lost, lease.lease(bucket, key, "s3://b/x"):
            self._left_behind(bucket, key)
            for _ in range(600):  # an interrupt does not end one long wait
                threading.Event().wait(0.05)
        assert json.loads(obstore.get(bucket, key).bytes().to_bytes())["host"] == "elsewhere"
        obstore.delete(bucket, key)

    def test_one_that_someone_removed_is_taken_again(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        with lease.lease(bucket, key, "s3://b/x"):
            obstore.delete(bucket, key)
            for _ in range(200):
                threading.Event().wait(0.05)
                with suppress(FileNotFoundError):
                    obstore.head(bucket, key)
                    return
        pytest.fail("not taken again in 10 s")
