"""Models that ship code of their own, devices, dtypes, and what identifies a model."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import pytest
import torch
import yaml

from drillcore.backends import source
from drillcore.backends.device import choose_device, narrowing_note
from drillcore.backends.source import identity, locate
from drillcore.backends.transformers.fit import build_on_meta, examine
from drillcore.backends.transformers.loading import load_model
from drillcore.errors import JobError, MissingExtraError, ModelError, StoreError, TextError
from drillcore.job.extract import Extract
from drillcore.job.file import load_job
from drillcore.job.model import Model
from drillcore.runtime.preflight import check_job
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages.extract.recipes import Recipe
from drillcore.system.progress import Silent
from support.adapters import write_adapter
from support.checkpoints import configure, copied, drop
from support.remote_code import model_with_code


@pytest.fixture
def job(tmp_path):
    """Writes a job for one model and returns it, loaded."""

    def write(model, extract=None, rows="One sentence.\nAnother one.\n", **dataset):
        (tmp_path / "rows.txt").write_text(rows, encoding="utf-8")
        content = {
            "models": [model],
            "datasets": [{"name": "rows", "path": "rows.txt", **dataset}],
            "extract": extract or {},
            "store": "out/states.zarr",
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_job(tmp_path / "job.yaml")

    return write


@pytest.fixture
def with_code(tmp_path, monkeypatch) -> Path:
    def ask(*_):
        pytest.fail("asked on the terminal")

    monkeypatch.setattr(builtins, "input", ask)
    return model_with_code(tmp_path / "model")


@pytest.mark.parametrize("random", [False, True])
def test_a_model_with_code_runs_without_a_question(random, with_code, job, tmp_path):
    model = {"id": str(with_code), "trust_remote_code": True, "random_weights": random}
    source = locate(Model(**model), Path("/"))
    assert source.facts.num_parameters > 0
    run_stages(job(model), ["extract"], Silent())
    assert (tmp_path / "out" / "states.zarr").exists()


def test_a_model_with_code_is_refused_without_a_question(with_code):
    with pytest.raises(ModelError, match="runs code of its own") as refused:
        locate(Model(id=str(with_code)), Path("/"))
    assert "trust_remote_code: true" in refused.value.hint


def test_changed_code_is_another_model(with_code, job):
    model = {"id": str(with_code), "trust_remote_code": True}
    before = identity(locate(Model(**model), Path("/")))
    assert set(before["code"]) == {"configuration_tiny.py", "modeling_tiny.py"}
    run_stages(job(model), ["extract"], Silent())
    with (with_code / "modeling_tiny.py").open("a", encoding="utf-8") as stream:
        stream.write("\n# Something else.\n")
    assert identity(locate(Model(**model), Path("/"))) != before
    with pytest.raises(StoreError, match=r"the code of the model changed"):
        run_stages(job(model), ["extract"], Silent())


def test_the_code_of_each_folder_runs_as_it_is_now(tmp_path):
    """transformers alone keeps the first class that it saw for a configuration, here that of the other folder."""
    folders = [model_with_code(tmp_path / name / "model") for name in "ab"]
    sources = [locate(Model(id=str(f), trust_remote_code=True), Path("/")) for f in folders]
    for number, folder in enumerate(folders):
        with (folder / "modeling_tiny.py").open("a", encoding="utf-8") as stream:
            stream.write(f"    number = {number}\n")
    assert [build_on_meta(s).number for s in sources] == [0, 1]
    assert [load_model(s, Extract(device="cpu"), 4).causal.number for s in sources] == [0, 1]


@pytest.mark.parametrize("random", [False, True])
def test_code_for_a_configuration_that_transformers_knows_is_run_too(random, models, tmp_path):
    """Such a model would be built as the class of transformers wherever the job's word is not handed on."""
    folder = copied(models("llama"), tmp_path / "model")
    configure(folder, auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    code = "from transformers import LlamaForCausalLM\n\n\nclass Own(LlamaForCausalLM):\n    pass\n"
    (folder / "modeling_own.py").write_text(code, encoding="utf-8")
    source = locate(Model(id=str(folder), trust_remote_code=True, random_weights=random), Path("/"))
    assert type(build_on_meta(source)).__name__ == "Own"
    assert type(load_model(source, Extract(device="cpu"), 4).causal).__name__ == "Own"
    plain = locate(Model(id=str(folder)), Path("/"))
    assert type(load_model(plain, Extract(device="cpu"), 4).causal).__name__ == "LlamaForCausalLM"


def test_groups_of_versions_that_did_not_record_code_are_up_to_date():
    request = {"model": {"config": "a", "code": {"a.py": "1"}}, "extract": {}}
    earlier = Recipe({"model": {"config": "a"}, "extract": {}}, {}, {})
    assert earlier.agrees_with(request, {}) and earlier.differences(request, {}) == []
    other = Recipe({"model": {"config": "a", "code": {}}, "extract": {}}, {}, {})
    assert not other.agrees_with(request, {})


def test_code_that_is_not_run_is_said(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "model")
    configure(folder, auto_map={"AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM"})
    (note,) = examine(locate(Model(id=str(folder)), Path("/"))).notes
    assert "code of its own, which is not run" in note


def test_code_that_needs_a_missing_package_says_so(with_code):
    with (with_code / "modeling_tiny.py").open("a", encoding="utf-8") as stream:
        stream.write("\nimport a_package_that_nobody_has\n")
    source = locate(Model(id=str(with_code), trust_remote_code=True), Path("/"))
    with pytest.raises(Exception, match="a_package_that_nobody_has") as refused:
        examine(source)
    assert getattr(refused.value, "exit_status", None) == 2


def test_an_adapter_is_a_part_of_the_model(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "model")
    source = locate(Model(id=str(folder)), Path("/"))
    before = identity(source)
    write_adapter(folder, folder, 0)
    assert identity(locate(Model(id=str(folder)), Path("/"))) != before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps", "meta", "nonsense"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(device, models, job, tmp_path):
    loaded = job(str(models("llama")), {"device": device})
    with pytest.raises(JobError, match=r"extract\.device"):
        check_job(loaded, Silent())
    with pytest.raises(JobError, match=r"extract\.device") as refused:
        run_stages(loaded, ["extract"], Silent())
    assert refused.value.exit_status == 2 and refused.value.hint
    assert not (tmp_path / "out").exists()
    assert choose_device(Extract(device="cpu")).type == "cpu"


@pytest.mark.parametrize("what", ["sentence", "expected_next", "candidate"])
def test_tokens_beyond_the_embedding_are_named(what, models, job, tmp_path):
    """The byte-level tokenizer has 259 tokens; this embedding has rows for the smaller ids alone."""
    folder = models("llama", vocab_size=200)
    job_of = {
        "sentence": lambda: job(str(folder), rows="plain\ntwo words\n"),
        "expected_next": lambda: job(
            str(folder), rows='{"text": "plain", "then": " \u00f3"}\n', path="rows.jsonl", expected_next="then"
        ),
        "candidate": lambda: job(str(folder), rows="plain\n", candidates=[" \u00f3"]),
    }
    if what == "expected_next":
        (tmp_path / "rows.jsonl").write_text('{"text": "plain", "then": " \u00f3"}\n', encoding="utf-8")
    with pytest.raises(TextError, match=r"the embedding of .* has 200 rows") as refused:
        run_stages(job_of[what](), ["extract"], Silent())
    assert "sentence 1" in str(refused.value) if what == "sentence" else "what follows it" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_auto_says_when_it_leaves_the_dtype_of_the_weights(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "model")
    source = locate(Model(id=str(folder)), Path("/"))
    assert examine(source).stored == "float32"
    (note,) = narrowing_note(source, Extract(), torch.bfloat16, "float16")
    assert "its weights are float16" in note and "dtype: float16 keeps them" in note
    assert narrowing_note(source, Extract(), torch.bfloat16, "bfloat16") == ()
    assert narrowing_note(source, Extract(), torch.float32, "float16") == ()
    assert narrowing_note(source, Extract(dtype="bfloat16"), torch.bfloat16, "float32") == ()


def test_stages_that_read_the_store_alone_need_no_weights(models, job, tmp_path):
    folder = copied(models("llama"), tmp_path / "model")
    run_stages(job(str(folder)), ["extract"], Silent())
    drop(folder, "layers.1.mlp.up_proj")
    with pytest.raises(StoreError, match="the weights of the model changed"):
        run_stages(job(str(folder)), ["measure"], Silent())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (None, "not a valid JSON file"),
        ({"num_attention_heads": "four"}, "'num_attention_heads' expected int"),
        ({"num_hidden_layers": 0}, "model.layers is empty"),
    ],
)
def test_a_damaged_configuration_is_refused_with_its_own_reason(changes, reason, models, tmp_path):
    folder = copied(models(), tmp_path / "damaged")
    config = folder / "config.json"
    whole = config.read_text(encoding="utf-8")
    config.write_text(whole[:-5] if changes is None else json.dumps(json.loads(whole) | changes), encoding="utf-8")
    with pytest.raises(ModelError) as raised:
        locate(Model(id=str(folder)), Path("/"))
    assert f"{raised.value}".startswith(f"model {folder}") and reason in f"{raised.value}"


@pytest.mark.parametrize("absent", ["torch", "transformers"])
def test_a_missing_package_is_named_with_the_extra(absent, models, monkeypatch):
    found = source.find_spec
    monkeypatch.setattr(source, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(MissingExtraError, match=f"needs {absent}, which is not installed") as refused:
        locate(Model(id=str(models())), Path())
    assert "drillcore[transformers]" in refused.value.hint
