"""Job files under drawn input: a job comes back as it was written, and a bad one is refused in plain words."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from drillcore.errors import DrillcoreError, JobError
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.file import load_job
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.stages import Measure, Project, Render, Run
from drillcore.runtime.preflight import check_job
from drillcore.system.progress import Silent

SEED = secrets.randbits(32)
QUICK = settings(max_examples=150, deadline=None, database=None)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,20}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
counts = st.integers(1, 10**6)
models = st.fixed_dictionaries(
    {"id": names.map("./{}".format)},
    optional={
        "revision": words,
        "as": names,
        "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
        "trust_remote_code": st.booleans(),
        "random_weights": st.booleans(),
    },
)
datasets = st.fixed_dictionaries(
    {"name": names, "path": names},
    optional={
        "text": words,
        "label": words,
        "group": words,
        "candidates": st.lists(words, unique=True, max_size=3),
        "keep": st.lists(names, max_size=3),
        "limit": counts,
        "template": words.map(lambda w: w.replace("{", "").replace("}", "") + "{text}"),
    },
)
sections: dict[str, st.SearchStrategy[Any]] = {
    "name": names,
    "store": names | names.map("s3://bucket/{}".format),
    "extract": st.fixed_dictionaries(
        {},
        optional={
            "layers": st.sampled_from(["all", "hf"]) | st.lists(st.integers(0, 40), min_size=1, unique=True),
            "batch_tokens": st.just("auto") | counts,
            "shard_sentences": st.just("auto") | st.integers(0, 20).map(lambda n: 2**n),
            "too_long": st.sampled_from(["error", "truncate"]),
            "threads": st.just("auto") | st.integers(1, 1024),
        },
    ),
    "measure": st.fixed_dictionaries({}, optional={"folds": st.integers(2, 100), "seed": st.integers(0, 2**32 - 1)}),
    "project": st.fixed_dictionaries(
        {}, optional={"min_dist": st.floats(0, 10), "n_neighbors": st.integers(2, 500), "align": st.booleans()}
    ),
    "render": st.fixed_dictionaries({}, optional={"panel_px": st.integers(150, 2000), "color": words}),
    "run": st.fixed_dictionaries({}, optional={"executor": st.just("ray"), "retries": st.integers(0, 9)}),
}
jobs = st.fixed_dictionaries(
    {
        "models": st.lists(models, min_size=1, max_size=3, unique_by=lambda m: Model.model_validate(m).group),
        "datasets": st.lists(datasets, min_size=1, max_size=3, unique_by=lambda d: d["name"]),
    },
    optional=sections,
)

FIELDS = sorted(
    {
        field.alias or name
        for kind in (Job, Model, Dataset, Extract, Measure, Project, Render, Run)
        for name, field in kind.model_fields.items()
    }
)
numbers = st.booleans() | st.integers() | st.floats() | st.dates()
leaves = st.none() | numbers | st.binary(max_size=4) | st.text(max_size=8)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | leaves, inner, max_size=5),
    max_leaves=12,
)

WHOLE = b"""\
name: fuzz
store: out.zarr
models: [{id: ./nowhere, as: m}]
datasets:
  - {name: d, path: texts.jsonl, label: label, keep: [a], limit: 2}
extract: {layers: all, threads: 1, shard_sentences: 64}
project: {method: pca, min_dist: 0.1}
"""
NASTY = [
    b"!!int x", b"!!float x", b"!!timestamp z", b"!!map x", b"!!seq x", b"!!set [1]", b"!!binary '*'", b"2001-99-99",
    b"._", b".inf", b".nan", b"0x", b"1:99", b"9" * 5000, b"0x" + b"f" * 6000, b"&a [*a]", b"&b {b: *b}",
    b"? [a]\n: b\n", b"<<: 1\n", b"*c", b'"\\0"', b'"\\ud800"', b'"\\x07"', b"~nobody-of-this-name/x", b"~", b"..",
    b"/", b"x" * 400, b"[" * 3000, b"{{", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"%YAML 9.9\n---\n", b"---\n", b"...",
    b"|", b">-", b"!!python/name:os.system", b"s3://", b"s3:///x", b"s3://b/../x", b"texts.jsonl", b"./texts.jsonl/x",
    b"1e400", b"-1", b"true", b"null",
]  # fmt: skip
PLACES = [b"out.zarr", b"./nowhere", b"texts.jsonl", b"[a]", b"fuzz", b"all", b"0.1"]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(NASTY) | st.binary(max_size=5)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(autouse=True)
def _say_seed() -> None:
    print("seed", SEED)


def accepted_or_refused(content: bytes) -> None:
    """Whatever goes wrong, up to reading the texts and looking for the model, is an error of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_bytes(content)
        (Path(folder) / "texts.jsonl").write_text('{"text": "one", "label": "x", "a": 1}\n', encoding="utf-8")
        try:
            loaded = load_job(path)
        except JobError as error:
            assert all(line.startswith(str(path)) for line in str(error).splitlines()), error
            return
        assert loaded.store
        try:
            check_job(loaded, Silent())
        except DrillcoreError as error:
            assert str(error)


@hypothesis.seed(SEED)
@QUICK
@given(jobs)
def test_a_job_comes_back_as_it_was_written(job: dict[str, Any]) -> None:
    wanted = Job.model_validate({"name": "job", **job})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        by_name = {d["name"]: {k: v for k, v in d.items() if k != "name"} for d in job["datasets"]}
        for value in (job, {**job, "datasets": by_name}, wanted.model_dump(mode="json", by_alias=True)):
            path.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")
            job_read: BaseModel = load_job(path).job
            assert job_read == wanted


@hypothesis.seed(SEED)
@QUICK
@given(anything)
def test_any_yaml_is_read_or_refused(value: Any) -> None:
    whole = {"models": ["./nowhere"], "datasets": {"d": "texts.jsonl"}}
    value = {**whole, **value} if isinstance(value, dict) else value
    accepted_or_refused(yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace"))


@hypothesis.seed(SEED)
@settings(QUICK, max_examples=400)
@given(edits)
def test_damaged_job_files_are_read_or_refused(edits: list[tuple[float, int, bytes]]) -> None:
    content = bytearray(WHOLE)
    for where, num_removed, put in edits:
        at = int(where * len(content))
        content[at : at + num_removed] = put
    accepted_or_refused(bytes(content))


@pytest.mark.parametrize("nasty", NASTY, ids=repr)
@pytest.mark.parametrize("place", PLACES, ids=repr)
def test_a_nasty_value_is_read_or_refused(place: bytes, nasty: bytes) -> None:
    accepted_or_refused(WHOLE.replace(place, nasty))


def test_an_error_shows_only_the_beginning_of_a_huge_value() -> None:
    levels = "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    accepted_or_refused(f"models: [x]\na: &a lol\n{levels}\n".encode())
