"""The ways to write a job's models and datasets, and what an override of the command line may do."""

from __future__ import annotations

import pytest
import yaml

from drillcore.errors import JobError
from drillcore.job.file import load_job


@pytest.fixture
def read(tmp_path):
    """Reads a job of these parts, with overrides."""

    def of(job, *overrides):
        path = tmp_path / "job.yaml"
        path.write_text(job if isinstance(job, str) else yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
        return load_job(path, overrides).job

    return of


@pytest.fixture
def refusal(read, tmp_path):
    """What is said of a job that is refused, without the folder of its file."""

    def of(job, *overrides):
        with pytest.raises(JobError) as caught:
            read(job, *overrides)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return of


def datasets(job):
    return [(d.name, d.path, d.label) for d in job.datasets]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("texts/a.csv", [("a", "texts/a.csv", "auto")]),
        (["a.csv", "b.jsonl.gz"], [("a", "a.csv", "auto"), ("b", "b.jsonl.gz", "auto")]),
        ([{"path": "a.csv", "label": "x"}, "b.txt"], [("a", "a.csv", "x"), ("b", "b.txt", "auto")]),
        ({"first": "a.csv", "2": {"path": "b.txt.zst"}}, [("first", "a.csv", "auto"), ("2", "b.txt.zst", "auto")]),
        ([{"name": "n", "path": "a.csv"}], [("n", "a.csv", "auto")]),
        (["été 2024.v2.csv.GZ"], [("ete-2024.v2", "été 2024.v2.csv.GZ", "auto")]),
    ],
)
def test_datasets(read, written, wanted):
    assert datasets(read({"models": "./m", "datasets": written})) == wanted


def test_one_model(read):
    assert [m.id for m in read({"models": "org/name", "datasets": "a.csv"}).models] == ["org/name"]


def test_names_are_read_as_they_are_written(read):
    """YAML alone takes no for false, 007 for 7 and 2024-01-01 for a date."""
    job = read("models: m\ndatasets:\n  no: a.csv\n  007: b.csv\n  2024-01-01: c.csv\n")
    assert [d.name for d in job.datasets] == ["no", "007", "2024-01-01"]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (["x/a.csv", "y/a.csv.gz"], "datasets: a is named twice; give one of them another `name:`"),
        (["テキスト.csv"], "give it a `name:`"),
        (
            {"path": "a.csv", "label": "x"},
            "job.yaml:2: datasets: `path` is a field of one dataset: begin that with `- `",
        ),
        ({"a": {"name": "b", "path": "a.csv"}}, "datasets: a: is called b too; leave out its `name:`"),
        ({"a": {"path": "a.csv", "limt": 3}}, "job.yaml:5: datasets.a.limt: unknown field; did you mean `limit`?"),
        ([{"label": "x"}], "job.yaml:3: datasets.0.path: is required: text"),
        ([{"path": "a.csv", "delimiter": "ab"}], "datasets.0.delimiter: must be one character, in quotes (';')"),
        ([{"path": "a.csv", "delimiter": "x"}], "no letter, digit, quotation mark or line end"),
        ([{"path": "a.csv", "delimiter": ""}], "(given: '')"),
        ([{"path": "a.tsv.gz", "delimiter": ";"}], "datasets.0.delimiter: is that of a .csv file"),
    ],
)
def test_datasets_that_are_refused(refusal, written, wanted):
    message = refusal({"models": "m", "datasets": written})
    assert wanted in message and len(message.splitlines()) == 1, message


@pytest.mark.parametrize("delimiter", [";", "|", "tab", " ", "\t", ",", "§"])
def test_delimiters(read, delimiter):
    (dataset,) = read({"models": "m", "datasets": [{"path": "A.CSV.gz", "delimiter": delimiter}]}).datasets
    assert dataset.delimiter == {"\t": "tab"}.get(delimiter, delimiter)


GOOD = {"models": [{"id": "./m", "as": "m"}], "datasets": {"d": "a.csv"}, "extract": {"shard_sentences": 16}}


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["extract.dtype=floot32"], "--set extract.dtype=floot32: extract.dtype: must be auto, float32, bfloat16 or "),
        (["extrct.dtype=float32"], "--set extrct.dtype=float32: extrct: unknown field; did you mean `extract`?"),
        (["extract.precision=16"], "--set extract.precision=16: extract.precision: unknown field; the type that the"),
        (["dtype=float32"], "dtype: unknown field; it is a field elsewhere: `models.dtype` or `extract.dtype`"),
        (["models.3.id=x"], "--set models.3.id=x: there is no item 3 of models, which has 1 item, 0"),
        (["models.M.dtype=float32"], "there is no item M of models, which has 1 item, 0; did you mean `m`?"),
        (["models.m.dtype=float8"], "--set models.m.dtype=float8: models.0.dtype: must be auto, float32"),
        (["datasets.d.limit=0"], "--set datasets.d.limit=0: datasets.d.limit: must be a whole number of at least 1"),
        (["name.x=0"], "--set name.x=0: there is no x in name, which is 'job'"),
        (["extract.dtype"], "--set extract.dtype: a field, = and its value are wanted"),
        (["extract.layers=[1"], "--set extract.layers=[1: a bracket that opens with [ is never closed"),
        (
            ["extract.dtype=float32", "extract.dtype=float16"],
            "extract.dtype is set twice: --set extract.dtype=float32 and",
        ),
        (
            ["extract.block_sentences=24"],
            "job.yaml:6: extract: block_sentences must be a multiple of shard_sentences (with --set "
            "extract.block_sentences=24)",
        ),
        (
            ["run.address=auto"],
            "--set run.address=auto: run.address: is that of a Ray cluster, and belongs to `executor",
        ),
        (["extract={dtype: x}"], "--set extract={dtype: x}: extract.dtype: must be"),
    ],
)
def test_a_mistake_in_an_override_is_blamed_on_it(refusal, overrides, wanted):
    message = refusal(GOOD, *overrides)
    assert wanted in message and len(message.splitlines()) == 1, message
    assert "job.yaml:" not in message or "(with --set" in message


def test_mistakes_of_the_file_and_of_an_override_are_told_apart(refusal):
    lines = refusal({**GOOD, "measure": {"folds": 1}}, "extract.threads=0").splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == ["--set extract.threads=0", "job.yaml:9"]


def test_overrides(read):
    job = read(GOOD, "models.m.dtype=float16", "datasets.d.limit=3", "run.retries=1", "run.retries=1")
    assert (job.models[0].dtype, job.datasets[0].limit, job.run.retries) == ("float16", 3, 1)
    assert read({**GOOD, "models": ["./m"]}, "models.0.dtype=float16").models[0].dtype == "float16"
    assert read({**GOOD, "run": None}, "run.retries=1").run.retries == 1


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        ({"precision": 16}, "precision: unknown field; the type that the model computes in is `extract.dtype`"),
        ({"extract": {"max_length": 512}}, "extract.max_length: unknown field; a sentence may be as long as"),
        ({"extract": {"batch_size": 8}}, "tokens of one forward pass are `extract.batch_tokens`"),
        ({"run": {"num_gpus": 2}}, "`extract.tensor_parallel`"),
        ({"extract": {"tp_plan": "auto"}}, "`extract.tensor_parallel`; `run.executor: ray`"),
        ({"model": "gpt2"}, "model: unknown field; did you mean `models`?"),
        ({"model_name": "gpt2"}, "models are listed under `models:`"),
        ({"datasets": [{"path": "a.csv", "text_column": "x"}]}, "the field of the sentence is `text:`"),
        ({"output_dir": "x"}, "where the states go is `store:`"),
        ({"extract": {"pooling": "mean"}}, "`extract.positions`"),
        (
            {"extract": {"load_in_8bit": True}},
            "weights are quantised on loading by `quantization:` of a model",
        ),
        ({"extract": {"dtype": "bf16"}}, "did you mean `bfloat16`?"),
        ({"project": {"perplexity": 30}}, "there is no t-SNE"),
        ({"extract": {"limit": 3}}, "extract.limit: unknown field; it is a field elsewhere: `datasets.limit`"),
        ({"extract": {"xyzzy": 3}}, "the fields here are backend, layers"),
    ],
)
def test_names_of_other_tools_lead_to_ours(refusal, job, wanted):
    message = refusal({**GOOD, **job})
    assert wanted in message and len(message.splitlines()) == 1, message


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("texts.csv", "text\na\n", "texts.csv is a file of sentences, not a job file"),
        ("texts.jsonl.gz", "{}", "texts.jsonl.gz is a file of sentences, not a job file"),
        ("store.zarr/zarr.json", "{}", "store.zarr is a store, not a job file"),
    ],
)
def test_other_things_in_place_of_a_job_file(tmp_path, name, content, wanted):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(JobError) as caught:
        load_job(tmp_path / name.partition("/")[0])
    assert wanted in str(caught.value) and "drillcore" in caught.value.hint
