"""What a job, a model or a text holds cannot run code, leave the store, or get into the logs."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from support.runs import sentences, snapshot

pytest_plugins = ["support.run_fixtures"]


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.fixture
def work(new_work):
    return new_work(count=20)


@pytest.fixture
def model(work, models):
    """A copy of a tiny model in the job's folder."""
    import shutil

    shutil.copytree(models(), work.folder / "model")
    work.job["models"] = [{"id": "./model", "as": "m"}]
    work.save()
    return work.folder / "model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model.pkl"])
@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_pickled_weights_are_never_read(name, backend, work, model):
    work.job["extract"]["backend"] = backend
    work.save()
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    (model / name).write_bytes(pickle.dumps(Touch(work.folder / "run")))
    command = work.run()
    assert command.status == 2 and "no safetensors weights" in command.err
    assert not (work.folder / "run").exists() and not work.store.exists()


def test_a_pickle_beside_the_weights_is_not_read(work, model):
    work.job["extract"]["backend"] = "transformers"
    work.save()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(work.folder / "run")))
    torch.save({"a": torch.zeros(1)}, model / "training_args.bin")
    work.finish()
    assert not (work.folder / "run").exists()


REMOTE = """
from pathlib import Path
Path({path!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
class Own(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaModel):
    config_class = Own
class OwnForCausalLM(LlamaForCausalLM):
    config_class = Own
"""


def test_remote_code_runs_only_where_the_job_says_so_and_that_is_logged(work, model):
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnForCausalLM"}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "own.py").write_text(REMOTE.format(path=str(work.folder / "run")), encoding="utf-8")
    refused = work.run()
    assert refused.status == 2 and "trust_remote_code: true" in refused.err
    assert not (work.folder / "run").exists() and not work.store.exists()
    work.job["models"][0]["trust_remote_code"] = True
    work.save()
    done = work.finish()
    assert (work.folder / "run").exists()
    assert "m: runs code of its own repository" in done.err
    assert work.manifest["job"]["models"][0]["trust_remote_code"] is True


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch run']",
        "models: !!python/object/apply:subprocess.check_output [[touch, run]]\ndatasets: {d: d.jsonl}",
        "models: [a]\ndatasets: {d: !!python/name:os.system }",
    ],
)
def test_yaml_makes_no_objects(text, work):
    (work.folder / "job.yaml").write_text(text, encoding="utf-8")
    command = work.run()
    assert command.status == 2 and "Traceback" not in command.err and not (work.folder / "run").exists()


def test_an_override_makes_no_objects(work):
    command = work.run("--set", "name=!!python/object/apply:os.system ['touch run']")
    assert command.status == 2 and not (work.folder / "run").exists()


@pytest.mark.parametrize(
    "named", ["../up", "/abs", "a/../../up", "..", ".", "zarr.json", "a\\b", "a\nb", " a", "__x", "", "x" * 300]
)
@pytest.mark.parametrize("what", ["model", "dataset", "column"])
def test_a_name_never_leaves_the_store(what, named, work):
    rows = [{**r, named: "v"} for r in sentences(0, 20)]
    work.texts("d", rows)
    if what == "model":
        work.job["models"][0]["as"] = named
    elif what == "dataset":
        work.job["datasets"][0]["name"] = named
    else:
        work.job["datasets"][0]["keep"] = [named]
    work.save()
    before = snapshot(work.folder.parent)
    command = work.run()
    assert command.status == 2 and "Traceback" not in command.err, command.err
    assert snapshot(work.folder.parent) == before


@pytest.mark.parametrize("name", ["..", "zarr.json", "-rf ~", "mödel ✨", "a b", "c"])
def test_a_model_directory_with_an_odd_name(name, work, model):
    """Its last part names the group; where it cannot, the job is refused."""
    if name == "..":
        (model / "sub").mkdir()
        work.job["models"] = [{"id": "./model/sub/.."}]
    else:
        model.rename(work.folder / name)
        work.job["models"] = [{"id": f"./{name}"}]
    work.save()
    outside = {p for p in snapshot(work.folder) if not p.startswith("runs")}
    command = work.run()
    if name in ("..", "zarr.json"):
        assert command.status == 2 and "cannot be a name in the store" in command.err
        assert not work.store.exists()
    else:
        assert command.status == 0, command.err
        assert (work.store / name / "d" / "hidden_states").is_dir()
    assert {p for p in snapshot(work.folder) if not p.startswith("runs")} == outside


def test_a_store_behind_a_link_stays_there(work, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    work.store.parent.mkdir()
    work.store.symlink_to(tmp_path / "elsewhere")
    work.finish()
    assert (tmp_path / "elsewhere" / "zarr.json").exists() and work.store.is_symlink()


def test_texts_reach_the_store_as_they_are(work):
    import zarr

    odd = ["<script>alert(1)</script>", "\u202eevil", "{text}", "%s %d", "[bold]x[/bold]", "../../etc", "a\r\nb", "🙂"]
    work.texts("d", [{"text": t, "label": t} for t in odd])
    work.finish()
    group = zarr.open_group(work.store, path="m/d", mode="r")
    assert group["text"][:].tolist() == odd and group["label"][:].tolist() == odd
