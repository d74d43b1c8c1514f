"""A wrong value of each field of a job is refused by every stage's command before anything is loaded or written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.stages import Measure, Project, Render, Run
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
HUGE = 10**12
# Field -> a wrong value, and what the message says. Values of several kinds where several places check them.
WRONG: list[tuple[str, Any, str]] = [
    ("name", "x" * 300, "name"),
    ("store", "job.yaml", "is a file"),
    ("store", "job.yaml/below.zarr", "is a file"),
    ("models", [], "models"),
    ("models.0.id", "./nowhere", "there is no folder"),
    ("models.0.revision", 7, "revision"),
    ("models.0.as", "a/b", "as"),
    ("models.0.dtype", "float8", "dtype"),
    ("models.0.device_map", "everywhere", "device_map: everywhere is neither one of auto, balanced"),
    ("models.0.device_map", "cuda:7", "nor a device of this machine"),
    ("models.0.offload", True, "offload: is what device_map may do"),
    ("models.0.trust_remote_code", "maybe", "trust_remote_code"),
    ("models.0.tokenizer", "./nowhere", "which its tokenizer names"),
    ("models.0.adapter", "./nowhere", "which its adapter names"),
    ("models.0.adapter_revision", "main", "adapter_revision: is that of an adapter on the hub"),
    ("models.0.merge_adapter", True, "merge_adapter, but it has no adapter"),
    ("models.0.quantization", "int8", "quantization"),
    ("models.0.quantization", {"method": "bitsandbytes", "load_in_8_bit": True}, "did you mean `load_in_8bit`?"),
    ("models.0.quantization", {"method": "fp8", "dequantize": False}, "fp8 takes dequantize: true alone"),
    ("models.0.gguf_file", "nowhere.gguf", "gguf_file names a file"),
    ("models.0.random_weights", "maybe", "random_weights"),
    ("datasets", [], "datasets"),
    ("datasets.0.name", "a/b", "name"),
    ("datasets.0.path", "nowhere.jsonl", "nowhere.jsonl"),
    ("datasets.0.revision", "main", "revision: is that of a data set of the hub"),
    ("datasets.0.delimiter", ";", "delimiter: is that of a .csv file"),
    ("datasets.0.encoding", "utf-16", "is not an encoding whose letters a to z are those of ASCII"),
    ("datasets.0.encoding", "latin-9000", "is not an encoding"),
    ("datasets.0.text", "body", "body"),
    ("datasets.0.empty", "keep", "empty"),
    ("datasets.0.label", "kind", "kind"),
    ("datasets.0.label_type", "numbers", "label_type"),
    ("datasets.0.label_type", "number", "is `Toronto`, and labels that are numbers need a finite one"),
    ("datasets.0.group", "family", "family"),
    ("datasets.0.labels", ["label", "kind"], "no field `kind`"),
    ("datasets.0.split", "part", "no field `part`"),
    ("datasets.0.split", 7, "split: must be text, or `{test: DATASET}`"),
    ("datasets.0.split", {"test": "nowhere"}, "there is no dataset 'nowhere'"),
    ("datasets.0.split", {"test": 7}, "split.test: must be text"),
    ("datasets.0.unlabelled", "guess", "unlabelled"),
    ("datasets.0.missing", "NA", "missing"),
    ("datasets.0.expected_next", "then", "then"),
    ("datasets.0.candidates", [""], "empty continuation"),
    ("datasets.0.keep", ["colour"], "colour"),
    ("datasets.0.limit", 0, "limit"),
    ("datasets.0.template", "no place", "template"),
    ("datasets.0.template", "chat", "chat"),
    ("datasets.0.template", "{{ text", "template: line 1: unexpected end of template"),
    ("datasets.0.template", "{{ tetx }}", "no field `tetx`"),
    ("datasets.0.templates", {"a": "no place"}, "templates: a: must hold {text} exactly once"),
    ("datasets.0.templates", {"a": "{{ text | title }}", "b": "{{ body }}"}, "no field `body`"),
    ("datasets.0.cannot_follow", "guess", "cannot_follow"),
    ("datasets.0.chat", 7, "chat"),
    ("datasets.0.messages", "said", "no field `said`"),
    ("datasets.0.system", "Be brief.", "belong to `messages`"),
    ("datasets.0.add_generation_prompt", "maybe", "add_generation_prompt"),
    ("datasets.0.positions", [], "names no position"),
    ("datasets.0.branches", {"q": "no place"}, "must hold {text} exactly once"),
    ("extract.backend", "jax", "'jax' is not one of"),
    ("extract.layers", [9], "layer 9 is out of range"),
    ("extract.layers", [-9], "layer -9 is out of range"),
    ("extract.layers", ["block_9"], "layer block_9 is out of range"),
    ("extract.layers", ["last"], "'last' is not a layer: a number (-1 is the last one), embed, block_12 or final_norm"),
    ("extract.layers", ["final_norm", -1], "are the same layer of this model"),
    ("extract.positions", ["first"], "is one of last, mean, all, turns"),
    ("extract.dtype", "float8", "dtype"),
    ("extract.device", "mars", "extract.device: mars is not a device"),
    ("extract.device", "meta", "extract.device: meta is not supported"),
    ("extract.device", "cuda:99", "extract.device: cuda:99 is not on this machine"),
    ("extract.store_dtype", "bfloat16", "store_dtype"),
    ("extract.layout", "loose", "layout"),
    ("extract.batch_tokens", 0, "batch_tokens"),
    ("extract.shard_sentences", 3, "power of two"),
    ("extract.shard_sentences", 2**60, "shard_sentences"),
    ("extract.batch_tokens", HUGE, "batch_tokens"),
    ("measure.permutations", HUGE, "permutations"),
    ("extract.block_sentences", 24, "multiple"),
    ("extract.too_long", "skip", "too_long"),
    ("extract.special_tokens", "some", "special_tokens"),
    ("extract.attention", "linear", "attention"),
    ("extract.compile", "fast", "compile"),
    ("extract.merge", "some", "merge"),
    ("extract.weights", "disk", "weights"),
    ("extract.tensor_parallel", 2, "tensor_parallel is 2, but the 2 processes would share 1 CPU threads"),
    ("extract.threads", 0, "threads"),
    ("extract.threads", HUGE, "threads"),
    ("measure.metrics", ["purty"], "did you mean `purity`"),
    ("measure.metrics", [], "names no measure"),
    ("measure.standardise", "scale", "standardise"),
    ("measure.folds", 1, "folds"),
    ("measure.permutations", -1, "permutations"),
    ("measure.sample", 3, "sample"),
    ("measure.seed", 2**32, "seed"),
    ("project.method", "tsne", "'tsne' is not one of"),
    ("project.backend", "cuml", "projection cuml needs cuml, which is not installed"),
    ("project.n_neighbors", 1, "n_neighbors"),
    ("project.min_dist", 1.5, "min_dist is 1.5"),
    ("project.metric", "hamming", "metric"),
    ("project.n_epochs", 0, "n_epochs"),
    ("project.fit", "all", "fit"),
    ("project.align", "maybe", "align"),
    ("project.seed", 2**32, "seed"),
    ("render.panel_px", 10, "panel_px"),
    (
        "render.layers",
        [9],
        "render.layers: layer 9 is in no model's store",
    ),
    ("render.layers", [], "render.layers"),
    ("render.align_depth", "maybe", "align_depth"),
    ("render.color", "mood", "render.color: no dataset has a coordinate mood"),
    ("render.outliers", "cut", "outliers"),
    ("render.columns", "some", "columns"),
    ("render.columns", 0, "columns"),
    ("render.tile_px", 10, "tile_px"),
    ("run.executor", "slurm", "'slurm' is not one of"),
    ("run.address", 7, "address"),
    ("run.address", "auto", "run.address: is that of a Ray cluster"),
    ("run.retries", -1, "retries"),
    ("run.audit", -1, "audit"),
]


def fields_of(kind: type[BaseModel], prefix: str) -> set[str]:
    return {f"{prefix}{field.alias or name}" for name, field in kind.model_fields.items()}


def test_every_field_of_a_job_has_a_wrong_value_here():
    sections = {"extract": Extract, "measure": Measure, "project": Project, "render": Render, "run": Run}
    fields = fields_of(Job, "") - set(sections) | fields_of(Model, "models.0.") | fields_of(Dataset, "datasets.0.")
    for name, kind in sections.items():
        fields |= fields_of(kind, f"{name}.")
    assert {name for name, *_ in WRONG} == fields, "add a wrong value of the new field to WRONG"


def put(job: dict[str, Any], field: str, value: Any) -> None:
    *parents, last = field.split(".")
    place: Any = job
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place.setdefault(parent, {})
    place[last] = value


@pytest.fixture(scope="module")
def work(make_work, tmp_path_factory):
    return make_work(tmp_path_factory.mktemp("wrong") / "work", count=20, backend="transformers")


@pytest.mark.parametrize(("field", "value", "message"), WRONG, ids=lambda part: str(part)[:40])
def test_it_is_refused_with_status_2_and_nothing_is_written(work, field, value, message):
    original = {
        name: (dict(part) if isinstance(part, dict) else [dict(p) for p in part]) for name, part in work.job.items()
    }
    put(work.job, field, value)
    work.save()
    before = snapshot(work.folder)
    # The model would be loaded: reading weights fails here.
    command = work.forge.run("run", work.file, cwd=work.folder, first=NO_WEIGHTS)
    work.job = original
    assert command.status == 2, (command.status, command.out, command.err)
    assert command.err.startswith("drillcore: ") and message in command.err, command.err
    assert "Traceback" not in command.err and "bug in drillcore" not in command.err
    assert snapshot(work.folder) == before


NO_WEIGHTS = """
import transformers
def refuse(*arguments, **named):
    raise AssertionError("a model was loaded")
transformers.AutoModelForCausalLM.from_pretrained = refuse
"""


@pytest.mark.parametrize("package", ["umap", "sklearn", "datashader", "colorcet"])
def test_a_missing_package_of_a_later_stage(work, package):
    work.save()
    before = snapshot(work.folder)
    missing = f"import sys\nsys.modules[{package!r}] = None\n"
    command = work.forge.run("run", work.file, cwd=work.folder, first=NO_WEIGHTS + missing)
    assert command.status == 2 and f"needs {package}, which is not installed" in command.err, command.err
    assert "pip install 'drillcore[" in command.err and snapshot(work.folder) == before


def test_a_job_is_extracted_on_one_machine_and_projected_on_another(new_work):
    """What a later stage needs of its machine does not keep this one from extracting."""
    work = new_work(count=20, project={"backend": "cuml"})
    work.finish()
    before = snapshot(work.store)
    command = work.forge.run("project", work.file, cwd=work.folder)
    assert command.status == 2 and "needs cuml" in command.err and snapshot(work.store) == before


@pytest.mark.parametrize("out", ["job.yaml", "job.yaml/below", "d.jsonl"])
def test_a_file_for_the_folder_beside_the_store(work, out):
    work.save()
    before = snapshot(work.folder)
    command = work.run("--out", out)
    assert command.status == 2 and "cannot be a folder" in command.err and snapshot(work.folder) == before


# What a model shows only when its weights are read, as a file system that fails then.
UNREADABLE = """
import transformers
def fail(*arguments, **named):
    raise OSError("the weights cannot be read")
transformers.AutoModelForCausalLM.from_pretrained = fail
"""


def test_a_model_that_is_refused_when_it_is_loaded_leaves_nothing(new_work):
    work = new_work(count=20, backend="transformers")
    before = snapshot(work.folder)
    for _ in range(2):
        command = work.run(first=UNREADABLE)
        assert command.status == 2 and "could not be loaded: the weights cannot be read" in command.err, command.err
        assert snapshot(work.folder) == before


def test_what_lies_where_a_refused_store_would_be_stays(new_work):
    work = new_work(count=20, backend="transformers")
    (work.folder / "runs" / "job").mkdir(parents=True)
    (work.folder / "runs" / "job" / "notes.txt").write_text("mine", encoding="utf-8")
    (work.folder / "runs" / "job" / "manifest.json").write_text("{}", encoding="utf-8")
    before = set(snapshot(work.folder))
    assert work.run(first=UNREADABLE).status == 2
    assert set(snapshot(work.folder)) == before
    assert (work.folder / "runs" / "job" / "manifest.json").read_text(encoding="utf-8") == "{}"


def test_a_model_refused_beside_a_store_that_holds_states_is_a_failed_run(new_work, models):
    """Status 2 would promise that nothing was written; what is committed stays."""
    work = new_work(count=20, backend="transformers")
    work.finish()
    states = work.states()
    work.job["models"] = [{"id": str(models("gpt2")), "as": "other"}]
    work.save()
    command = work.run(first=UNREADABLE)
    assert command.status == 1 and "could not be loaded" in command.err
    assert {name: data for name, data in work.states().items() if name.startswith("m/")} == states
