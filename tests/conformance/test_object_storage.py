"""What object storage adds: commands that fill a bucket, faults of the server, and credentials."""

from __future__ import annotations

import random
from collections import Counter

import obstore
import pytest

from drillcore.store.places.s3 import open_bucket
from support.runs import sentences
from support.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Proxy, aws_environment

pytest_plugins = ["support.run_fixtures", "support.s3_fixtures"]


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
        command = work.start("--store", place, env=aws_environment())
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


def test_positions_and_branches_fill_a_bucket_as_they_fill_a_folder(new_work, s3, seed):
    work = new_work(seed=seed, count=70)
    work.job["extract"]["positions"] = ["last", "mean", {"last": 3}]
    work.job["datasets"][0]["branches"] = {"q": "{text} Why?"}
    work.save()
    work.finish()
    place = f"s3://{BUCKET}/{work.folder.parent.name}/placed.zarr"
    bucket = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))
    _finish(work, place)
    want = work.states()
    assert {path.split("/")[1] for path in want} == {"d", "d~mean", "d~last-3", "d~q"}
    for path, data in want.items():
        assert obstore.get(bucket, path).bytes().to_bytes() == data, path
    verify = work.forge.run("verify", place, cwd=work.folder, env=aws_environment())
    assert verify.status == 0, verify.out + verify.err


def test_a_bucket_refuses_what_would_be_lost_and_grows(new_work, s3, seed):
    work = new_work(seed=seed, count=40)
    place = f"s3://{BUCKET}/{work.folder.parent.name}/changing.zarr"
    bucket = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))

    def objects():
        return {o["path"]: o["e_tag"] for batch in obstore.list(bucket) for o in batch}

    _finish(work, place)
    before = objects()
    work.job["datasets"][0]["limit"] = 10
    work.save()
    refused = work.run("--store", place, env=aws_environment())
    assert refused.status == 2 and "40 sentences × 5 layers" in refused.err, refused.err
    assert objects() == before
    del work.job["datasets"][0]["limit"]
    work.texts("d", sentences(seed, 40) + sentences(seed + 1, 30))
    work.save()
    _finish(work, place)
    after, whole = objects(), [p for p in before if p.startswith("m/d/hidden_states/c/0/")]
    assert whole and all(after[p] == before[p] for p in whole)
    work.job["store"] = place
    work.save()
    limited = work.run("--limit", "5", env=aws_environment())
    assert limited.status == 0 and place.replace(".zarr", "-limit5.zarr") in limited.out, limited.err
    assert objects() == after


def _finish(work, place, first=""):
    command = work.run("--store", place, env=aws_environment(), first=first)
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


@pytest.mark.parametrize("fault", ["500", *(pytest.param(f, marks=pytest.mark.long) for f in ("reset", 3.0))])
def test_lasting_faults_end_the_run_which_can_go_on(fault, proxy, new_work, seed):
    work = new_work(seed=seed, count=64)
    place = f"s3://{BUCKET}/{work.folder.parent.name}/lasting.zarr"
    proxy.fault = lambda method, path: fault if "/hidden_states/c/2/" in path and method != "GET" else None
    failed = work.run("--store", place, env=aws_environment(), first=QUICK)
    assert failed.status == 1, failed.err
    assert "m/d: shard 2 (sentences 32 to 47)" in failed.err and "could not be written" in failed.err
    assert "run the same command again" in failed.err and "Traceback" not in failed.err
    tries = [r for r in proxy.requests if r[2]]
    assert 2 <= len(tries) <= 40, "retried, and with a bound"
    check_no_secret(work, failed)
    proxy.fault = lambda method, path: None
    done = _finish(work, place)
    assert done.err.count("sentences") and list(work.folder.joinpath("runs").glob("lasting-*/manifest.json"))


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
        **aws_environment(),
        "AWS_SESSION_TOKEN": SECRET_KEY + "token",
        "AWS_ENDPOINT_URL": f"http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1:9",
    }
    nowhere = work.run("--store", place, env=token, first=QUICK)
    debugged = work.run("--store", place, "--debug", env=token, first=QUICK)
    assert nowhere.status == 1 and "could not be reached" in nowhere.err
    written = work.run("--store", f"s3://{ACCESS_KEY}:{SECRET_KEY}@{BUCKET}/x.zarr", env=aws_environment())
    assert written.status == 2 and "holds credentials" in written.err
    proxy.fault = lambda method, path: "403"
    denied = work.run("--store", place, env=aws_environment(), first=QUICK)
    assert denied.status == 2 and "access is denied" in denied.err and "AWS_" in denied.err
    shown = work.forge.run("show", place, cwd=work.folder, env=aws_environment(), first=QUICK)
    assert shown.status != 0 and "Traceback" not in shown.err
    check_no_secret(work, done, nowhere, debugged, written, denied, shown)


def test_no_bucket_and_no_server(new_work, s3):
    work = new_work(count=20)
    missing = work.run("--store", "s3://no-such-bucket/x.zarr", env=aws_environment(), first=QUICK)
    assert missing.status == 2 and "the bucket does not exist" in missing.err, missing.err
    env = {**aws_environment(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    unreachable = work.run("--store", f"s3://{BUCKET}/x.zarr", env=env, first=QUICK)
    assert unreachable.status == 1 and "could not be reached" in unreachable.err
    assert not any("bug in drillcore" in c.err or "Traceback" in c.err for c in (missing, unreachable))
