"""Streamed weights on real Ray: the bytes of one resident process, few readings of the model, and plain ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from executor_contract import Bench, louder, same_bytes

import drillcore
from drillcore.backends.source import locate
from drillcore.backends.transformers.streamed import choice
from drillcore.backends.transformers.streamed.choice import need_of
from drillcore.errors import RunError, WeightsChangedError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.job.stages import Run
from drillcore.runtime.executors.ray.executor import RayExecutor
from drillcore.system.machine import allowed_disk_bytes
from support.clusters import ray_cluster

# Small batches and blocks: 14 of these.
SMALL = {"batch_tokens": 128, "block_sentences": 64}
# Bytes for two or three sweeps of each of two workers.
ROOM = 10_000_000
STREAMED = {**SMALL, "weights": "streamed"}
# What every process of the cluster does first: it takes memory and disturbances from files of the tests' folder.
SETUP = """
import os, signal
from pathlib import Path

FOLDER = Path({folder!r})


def setup():
    from drillcore.backends.transformers.streamed import choice, layers, room, sweep
    from drillcore.store.group import GroupWriter
    from drillcore.system import machine

    free, bring, commit, commits = room.allowed_memory_bytes, layers.StreamedLayers.bring, GroupWriter.commit, []

    def allowed():
        file = FOLDER / "free"
        return int(file.read_text()) if file.exists() else free()

    def claimed(name):
        try:
            (FOLDER / name).rename(FOLDER / (name + " done"))
        except FileNotFoundError:
            return False
        return True

    def brought(self, number):
        (FOLDER / f"{{machine._sharing.processes}} share").touch()
        if commits and number == 2:
            if claimed("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if claimed("touch"):
                os.utime(Path((FOLDER / "touch done").read_text()) / "model.safetensors")
        bring(self, number)

    def committed(self, *args, **kwargs):
        commit(self, *args, **kwargs)
        commits.append(0)

    def together(self, taken, room):
        file = FOLDER / "deadly"
        if file.exists() and any((parked.batch.token_ids_RW == int(file.read_text())).any() for parked in taken):
            with (FOLDER / "deaths").open("a") as stream:
                print(len({{id(parked.work) for parked in taken}}), file=stream)
            os.kill(os.getpid(), signal.SIGKILL)
        swept(self, taken, room)

    swept, sweep.Sweeps._together = sweep.Sweeps._together, together
    room.allowed_memory_bytes = choice.allowed_memory_bytes = allowed
    layers.StreamedLayers.bring, GroupWriter.commit = brought, committed
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("disturbed")


@pytest.fixture(scope="module")
def cluster(folder):
    """Two nodes of one core each, on one machine, whose processes call `setup`."""
    (folder / "disturbed.py").write_text(SETUP.format(folder=str(folder)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
        with ray_cluster() as found:
            import ray

            ray.init(
                address=found.address,
                log_to_driver=False,
                namespace="drillcore",
                runtime_env={"worker_process_setup_hook": "disturbed.setup"},
            )
            yield {"executor": "ray", "address": found.address}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, models):
    """A job, and the bytes that one process gives with the whole model in memory."""
    bench = Bench.drawn(tmp_path_factory.mktemp("plain"))
    model = {"id": str(models("llama", num_hidden_layers=6)), "as": "tiny"}
    datasets = [bench.texts("d", 448), bench.texts("e", 448)]
    bench.run("plain", [model], datasets, {"executor": "local"}, **SMALL)
    return bench, model, datasets, states(bench, "plain")


@pytest.fixture
def free(folder, monkeypatch):
    """Sets the memory that is free, in bytes: in the cluster beside a model, and here before it is loaded."""

    def settle(count: int, beside: int = 0) -> None:
        (folder / "free").write_text(str(count))
        monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: count + beside)

    yield settle
    (folder / "free").unlink(missing_ok=True)


def states(bench: Bench, store: str) -> dict[str, bytes]:
    """Files of the states; fingerprints hold that weights are streamed."""
    return {name: data for name, data in bench.committed(store).items() if "/shard_fingerprint/" not in name}


def planned(bench: Bench, model, datasets) -> str:
    """What the plan says of streaming, for Ray that the run starts by itself on two cores."""
    job = drillcore.Job(
        models=[model],
        datasets=datasets,
        store=str(bench.folder / "planned.zarr"),
        extract={"threads": 1, "shard_sentences": 64, **STREAMED},
        run={"executor": "ray"},
    )
    (note,) = (n for n in drillcore.plan(job, calibrate=False).notes if "streamed" in n)
    return note


def test_states_are_those_of_one_resident_process_and_a_reading_has_many_blocks(cluster, plain, folder):
    bench, model, datasets, expected = plain
    heard, manifest = bench.run("streamed", [model], datasets, cluster, **STREAMED)
    assert same_bytes(states(bench, "streamed"), expected)
    assert heard.done == heard.total == 896 and manifest["status"] == "done"
    assert manifest["models"]["tiny"]["numerics"]["weights"] == "streamed"
    assert manifest["models"]["tiny"]["audit"]["passed"]
    workers = manifest["executor"]["workers"]
    sweeps = sum(w.get("sweeps", 0) for w in workers)
    assert sum(w["blocks"] for w in workers) == 14 and 1 <= sweeps <= 4
    assert manifest["models"]["tiny"]["extract"]["sweeps"] == sweeps
    assert [file.name for file in folder.glob("* share")] == ["2 share"], "two workers are on this machine"
    again, _ = bench.run("streamed", [model], datasets, cluster, **STREAMED)
    assert again.done == 0 and any("up to date" in line for line in again.lines)


def test_what_is_called_elsewhere_counts_its_share_of_a_machine_too(cluster, tmp_path):
    executor = RayExecutor(Run.model_validate(cluster), Extract(threads=1), print)
    free = allowed_disk_bytes(tmp_path)
    for count, share in ((1, 1), (5, 2)):
        found = dict(executor.map(allowed_disk_bytes, [tmp_path] * count))
        assert found == {i: pytest.approx(free / share, rel=0.1) for i in range(count)}


@pytest.mark.long
def test_readings_are_as_many_as_the_plan_says(cluster, plain, free, monkeypatch):
    bench, model, datasets, expected = plain
    monkeypatch.setattr("drillcore.api.streaming.num_cores", lambda: 2)
    taken = need_of(locate(Model(**model), Path("/")), Extract(**STREAMED)).streamed
    free(ROOM, beside=taken)
    note = planned(bench, model, datasets)
    found = re.search(r"weights are streamed by each of 2 actors, (\d+) sweeps of at most .* for each$", note)
    assert found is not None, note
    _, manifest = bench.run("small", [model], datasets, cluster, **STREAMED)
    assert same_bytes(states(bench, "small"), expected)
    workers = manifest["executor"]["workers"]
    # The plan does not know how rows are filled, nor where sweeps end between the workers.
    sweeps = sum(w.get("sweeps", 0) for w in workers)
    assert abs(sweeps - 2 * int(found[1])) <= 2 and sweeps <= 8 < sum(w["blocks"] for w in workers)


@pytest.mark.long
def test_a_worker_killed_in_the_middle_of_a_sweep(cluster, plain, free, folder):
    bench, model, datasets, expected = plain
    free(ROOM)
    (folder / "kill").touch()
    heard, manifest = bench.run("killed", [model], datasets, cluster, **STREAMED)
    assert (folder / "kill done").exists() and any("is gone" in line for line in heard.lines)
    assert same_bytes(states(bench, "killed"), expected)
    assert heard.done == heard.total == 896 and manifest["status"] == "done"
    assert manifest["models"]["tiny"]["extract"]["sweeps"] < 14


@pytest.mark.long
def test_weights_that_change_under_the_run_end_it_and_nothing_wrong_is_stored(cluster, plain, free, folder, tmp_path):
    bench, model, datasets, expected = plain
    copied = shutil.copytree(model["id"], tmp_path / "model")
    free(ROOM)
    (folder / "touch").write_text(str(copied))
    with pytest.raises(WeightsChangedError, match=r"its weights changed while they were read: .*model.safetensors"):
        bench.run("changed", [{"id": str(copied), "as": "tiny"}], datasets, cluster, **STREAMED)
    assert (folder / "touch done").exists()
    kept = {name: data for name, data in states(bench, "changed").items() if "/hidden_states/c/" in name}
    assert 0 < len(kept) < 14 and kept.items() <= expected.items()
    assert bench.manifest("changed")["status"].startswith("failed")


def with_a_line(bench: Bench, name: str, text: str) -> dict[str, str]:
    """A dataset of 448 sentences, of which the 301st is this one."""
    dataset = bench.texts(name, 448)
    lines = Path(dataset["path"]).read_text(encoding="utf-8").splitlines()
    lines[300] = json.dumps({"text": text})
    Path(dataset["path"]).write_text("\n".join(lines), encoding="utf-8")
    return dataset


@pytest.mark.long
def test_a_block_whose_states_do_not_fit_is_set_aside_and_the_others_of_its_sweep_are_kept(cluster, plain, tmp_path):
    bench, model, _, _ = plain
    wanted = [{"id": str(louder(Path(model["id"]), tmp_path / "loud", "Z", 1e6)), "as": "loud"}]
    datasets = [with_a_line(bench, "z", "and then Z")]
    found = {}
    for name, settings, more in (("loud", cluster, STREAMED), ("one", {"executor": "local"}, SMALL)):
        with pytest.raises(RunError) as caught:
            bench.run(name, wanted, datasets, settings, store_dtype="float16", **more)
        assert "1 blocks failed" in str(caught.value) and "loud/z, sentences 256 to 319" in str(caught.value)
        found[name] = states(bench, name)
    assert same_bytes(found["loud"], found["one"])


@pytest.mark.long
def test_a_block_that_kills_its_workers_is_found_by_halves_and_its_company_is_kept(cluster, plain, folder):
    from tokenizers import Tokenizer

    bench, model, _, _ = plain
    token = Tokenizer.from_file(str(Path(model["id"]) / "tokenizer.json")).token_to_id("Z")
    (folder / "deadly").write_text(str(token))
    try:
        with pytest.raises(RunError) as caught:
            bench.run("deadly", [model], [with_a_line(bench, "y", "and then Z")], {**cluster, "retries": 0}, **STREAMED)
    finally:
        (folder / "deadly").unlink()
    assert "1 blocks failed for good" in str(caught.value) and "sentences 256 to 319" in str(caught.value)
    deaths = [int(line) for line in (folder / "deaths").read_text().splitlines()]
    assert 1 < len(deaths) <= 4 and deaths[-1] == 1 and deaths == sorted(deaths, reverse=True)
    prints = [n for n in bench.committed("deadly") if "/shard_fingerprint/c/" in n]
    assert len(prints) == 7 - 1
