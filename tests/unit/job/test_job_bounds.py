"""A job file of any kind, size, depth or number ends as one refusal, and so does an override."""

from __future__ import annotations

import os

import pytest

from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.file import MOST_BYTES, load_job
from drillcore.job.inputs import Dataset
from drillcore.job.stages import Measure, Project, Render, Run

GOOD = "models: [./m]\ndatasets: {d: a.txt}\n"
NUMBERS = [
    "9" * 4400,
    "-" + "9" * 4400,
    "0x" + "f" * 8000,
    str(2**62),
    str(2**70),
    str(-(2**70)),
    "1e400",
    ".inf",
    ".nan",
]
# Fields that hold a number, beside those of which every number of this size is refused by another check.
SECTIONS = {"extract": Extract, "measure": Measure, "project": Project, "render": Render, "run": Run}


def numeric_fields():
    for section, kind in SECTIONS.items():
        for name, field in kind.model_fields.items():
            if any(word in str(field.annotation) for word in ("int", "float")) and "str" not in str(field.annotation):
                yield f"{section}.{name}"


# How large min_dist may be is for the projection to say.
FIELDS = sorted({*numeric_fields(), "extract.layers", "render.layers"} - {"project.min_dist"})


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def refused(job, overrides=()):
    with pytest.raises(JobError) as caught:
        load_job(job, overrides)
    message = str(caught.value)
    assert len(message) < 20_000 and message.startswith(("there is no job", str(job)[:50], "--set "))
    return message


def test_the_fields_are_found():
    assert {"extract.threads", "measure.folds", "measure.permutations", "measure.sample", "run.retries"} <= set(FIELDS)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: n[:12])
def test_a_number_beyond_everything_is_refused_in_every_field(job, number):
    for field in FIELDS:
        section, name = field.split(".")
        refused(job, [f"{field}={number}"])
        job.write_text(f"{GOOD}{section}: {{{name}: {number}}}\n", encoding="utf-8")
        refused(job)
        job.write_text(GOOD, encoding="utf-8")
    refused(job, [f"extract.layers=[{number}]"])
    job.write_text(f"models: [./m]\ndatasets: [{{name: d, path: a.txt, limit: {number}}}]\n", encoding="utf-8")
    refused(job)


def test_minus_zero_is_zero(job):
    assert load_job(job, ["measure.seed=-0", "project.min_dist=-0.0"]).job.measure.seed == 0


SHAPES = {
    "deep flow": "models: " + "[" * 20_000,
    "deep closed": "models: " + "[" * 900 + "]" * 900,
    "deep map": "models: " + "{a: " * 20_000,
    "deep block": "- " * 20_000,
    "deep aliases": "".join(f"a{i}: &a{i} [{'*a' + str(i - 1) if i else ''}]\n" for i in range(3000)),
    "laughs": "a: &a [x]\n" + "".join(f"{c}: &{c} [{f'*{chr(ord(c) - 1)},' * 9}]\n" for c in "bcdefghijk"),
    "many fields": "\n".join(f"k{i}: 1" for i in range(20_000)),
    "long field": "k" * 500_000 + ": 1",
    "long name": "name: " + "x" * 500_000,
    "number as a key": "9" * 5000 + ": 2",
    "sexagesimal": "name: " + ":".join(["59"] * 3000),
    "number": "9" * 5000,
    "control": "models: \x1b[31m",
    "two documents": f"{GOOD}---\n{GOOD}",
    "too large": "#" * MOST_BYTES + "\n" + GOOD,
}


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_a_file_of_any_shape(job, text):
    job.write_text(text, encoding="utf-8")
    refused(job)


@pytest.mark.parametrize(
    "override",
    [
        "models=" + "[" * 20_000,
        "models=" + "[" * 900 + "]" * 900,
        "models=" + "9" * 5000,
        "models=0x" + "f" * 9000,
        "models=2001-99-99",
        "models=\x1b[31m",
        "models=&a [*a]",
        "models={a: 1, a: 2}",
        "models." + "9" * 5000 + ".id=x",
        "models.².id=x",
        "models.-1.id=x",
        ".".join(["a"] * 2000) + "=1",
        "\udcff=1",
        "name=\udcff",
        "x" * 100_000,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_an_override_of_any_shape(job, override):
    refused(job, [override])


def test_a_job_file_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**40)
    for name in ("pipe", "broken", "loop", "folder", "sparse", "missing", "/dev/zero", "nul\0", "x" * 5000):
        with pytest.raises(JobError) as caught:
            load_job(tmp_path / name)
        assert len(str(caught.value)) < 1000


def test_every_number_has_an_upper_bound():
    """A new field of a job gets one too."""
    schema = Job.model_json_schema()["$defs"]
    kinds = {kind.__name__: kind for kind in (*SECTIONS.values(), Dataset)}

    def open_ended(node):
        if isinstance(node, dict):
            if node.get("type") in ("integer",) and "maximum" not in node and "enum" not in node:
                yield node
            for value in node.values():
                yield from open_ended(value)
        elif isinstance(node, list):
            for value in node:
                yield from open_ended(value)

    # Arguments of a chat template are its own affair.
    found = {f"{k}.{f}" for k in kinds for f, n in schema[k]["properties"].items() if list(open_ended(n))}
    assert found == {"Dataset.chat"}
