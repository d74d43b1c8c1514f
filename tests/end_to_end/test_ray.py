"""Runs on real Ray that lose a worker, a node, or their user, and still end complete and identical."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from executor_contract import Bench, Listener, same_bytes

from drillcore.errors import RunError
from support.clusters import ray_cluster

# Processes are started, killed and started again by the dozen: minutes on two cores.
pytestmark = pytest.mark.long

LOCAL = {"executor": "local"}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core and one GPU by Ray's count; the last test takes one of them away."""
    with ray_cluster(num_gpus=1) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory, models):
    """A job of some seconds, and the bytes that one uninterrupted process gives."""
    bench = Bench.drawn(tmp_path_factory.mktemp("plain"))
    model = {"id": str(models("llama", num_hidden_layers=6)), "as": "tiny"}
    datasets = [bench.texts("long", 1200, longest=50)]
    bench.run("plain", [model], datasets, LOCAL)
    return bench, model, datasets, bench.committed("plain")


class Midway(Listener):
    """Does something once, when so much of the work is done that every worker has blocks under way."""

    def __init__(self, action) -> None:
        super().__init__(self.look)
        self.action, self.happened = action, False

    def look(self, count) -> None:
        if not self.happened and self.total / 4 < self.done < self.total * 3 / 4:
            self.happened = True
            self.action(self)

    @property
    def workers(self) -> list[int]:
        """Processes that load models."""
        return [int(n) for line in self.lines for n in re.findall(r"loading .* on .*, process (\d+)$", line)]


def test_a_worker_killed_in_the_middle_of_a_shard(cluster, plain):
    bench, model, datasets, expected = plain

    def kill(heard: Midway) -> None:
        os.kill(heard.workers[0], signal.SIGKILL)

    heard = Midway(kill)
    _, manifest = bench.run("killed", [model], datasets, {"executor": "ray", "address": cluster.address}, heard)
    assert heard.happened and any("is gone" in line for line in heard.lines)
    assert same_bytes(bench.committed("killed"), expected)
    assert heard.done == heard.total == 1200 and manifest["status"] == "done"
    assert manifest["executor"]["worker_size"] == "1 GPU and 1 CPU cores"
    workers = manifest["executor"]["workers"]
    assert len(workers) == 2 and all("GPU 0" in w["worker"] for w in workers)
    # The one that was killed may have finished no block at all.
    assert sum(w["sentences"] for w in workers) == 1200
    assert all((w["sentences_per_second"] > 0) == (w["sentences"] > 0) for w in workers)
    assert all(len(w["loads"]) <= w["starts"] for w in workers)


@pytest.mark.long
def test_a_block_that_kills_its_workers_is_set_aside_and_its_company_is_not(cluster, plain, tmp_path, models):
    bench, _, datasets, _ = plain
    deadly = deadly_model(models("llama"), tmp_path / "deadly", "Z", tmp_path / "deaths")
    path = Path(datasets[0]["path"])
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[300] = json.dumps({"text": "and then Z"})
    deadly_texts = tmp_path / "deadly.jsonl"
    deadly_texts.write_text("\n".join(lines), encoding="utf-8")
    settings = {"executor": "ray", "address": cluster.address, "retries": 1}
    wanted = [{"id": str(deadly), "as": "deadly", "trust_remote_code": True}]
    with pytest.raises(RunError) as caught:
        bench.run("deadly", wanted, [{"name": "d", "path": str(deadly_texts)}], settings)
    assert "1 blocks failed for good" in str(caught.value) and "sentences 256 to 383" in str(caught.value)
    assert len((tmp_path / "deaths").read_text(encoding="utf-8").splitlines()) in (2, 3)
    prints = [n for n in bench.committed("deadly") if "/shard_fingerprint/c/" in n]
    assert len(prints) == 19 - 2


def test_ctrl_c_leaves_no_process_and_the_next_run_goes_on(plain, cluster):
    """On a cluster of the run's own; what is left is done by one process, and all comes out the same."""
    bench, model, datasets, expected = plain
    job = {
        "name": "executors", "store": "stopped.zarr", "models": [model], "datasets": datasets,
        "extract": {"threads": 1, "shard_sentences": 64, "block_sentences": 128}, "run": {"executor": "ray"},
    }  # fmt: skip
    (bench.folder / "stopped.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    command = [sys.executable, "-m", "drillcore", "extract", "stopped.yaml"]
    run = subprocess.Popen(
        command, cwd=bench.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    prints = bench.folder / "stopped.zarr" / "tiny" / "long" / "shard_fingerprint" / "c"
    family: set[psutil.Process] = set()
    while run.poll() is None and len([*prints.glob("*/*")]) < 2:
        family |= set(psutil.Process(run.pid).children(recursive=True))
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, out + err
    assert "interrupted" in err and len(family) > 4
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive and gone
    before = len([*prints.glob("*/*")])
    assert 0 < before < 19
    heard, manifest = bench.run("stopped", [model], datasets, LOCAL)
    assert manifest["status"] == "done" and 0 < heard.total < 1200
    assert same_bytes(bench.committed("stopped"), expected)


def test_a_node_taken_away(cluster, plain):
    """Last: the cluster is the smaller for it."""
    bench, model, datasets, expected = plain

    def remove(heard: Midway) -> None:
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    heard = Midway(remove)
    _, manifest = bench.run("smaller", [model], datasets, {"executor": "ray", "address": cluster.address}, heard)
    assert heard.happened and any("is gone" in line for line in heard.lines)
    assert same_bytes(bench.committed("smaller"), expected)
    assert heard.done == heard.total == 1200 and manifest["status"] == "done"


def deadly_model(source: Path, target: Path, letter: str, deaths: Path) -> Path:
    """A Llama with code of its own, which ends its process when it reads a letter, and notes it in a file."""
    import shutil

    from tokenizers import Tokenizer

    shutil.copytree(source, target)
    token = Tokenizer.from_file(str(target / "tokenizer.json")).token_to_id(letter)
    (target / "modeling_deadly.py").write_text(
        f"""import os, signal
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

class DeadlyConfig(LlamaConfig):
    model_type = "deadly"

class DeadlyModel(LlamaModel):
    def forward(self, input_ids=None, **named):
        if (input_ids == {token}).any():
            with open({str(deaths)!r}, "a") as stream:
                stream.write("once\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(input_ids=input_ids, **named)

class DeadlyForCausalLM(LlamaForCausalLM):
    config_class = DeadlyConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = DeadlyModel(config)
        self.post_init()
""",
        encoding="utf-8",
    )
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "deadly",
        "architectures": ["DeadlyForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_deadly.DeadlyConfig",
            "AutoModelForCausalLM": "modeling_deadly.DeadlyForCausalLM",
        },
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target
