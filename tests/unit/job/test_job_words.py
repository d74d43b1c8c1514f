"""No mistake in a job is told in the words of a library or of Python, and each says what may stand there."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml

from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.file import load_job
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.positions import AllOf, MeanOf, Position, TurnsOf
from drillcore.job.stages import Measure, Project, Render, Run
from support.words import LIBRARY_WORDS

# A field's part of the job, and where that stands.
PARTS = {
    Job: "",
    Model: "models.0.",
    Dataset: "datasets.0.",
    Extract: "extract.",
    Measure: "measure.",
    Project: "project.",
    Render: "render.",
    Run: "run.",
    Position: "extract.positions.0.",
    MeanOf: "extract.positions.0.mean.",
    AllOf: "extract.positions.0.all.",
    TurnsOf: "extract.positions.0.turns.",
}
FIELDS = [f"{where}{field.alias or name}" for kind, where in PARTS.items() for name, field in kind.model_fields.items()]
VALUES: list[Any] = [
    *(None, "", "x", "x" * 500, 0, -1, 10**30, 0.5, float("nan"), float("inf"), True, False, b"\xff"),
    *([], ["x"], [None], [[1]], [{}], [True], {}, {"x": 1}, {1: {}}, {"x" * 300: "y"}, {"a b": None}),
    *(datetime.date(2024, 1, 1), "a\0b", ["a\0b"], {"x", "y"}),
]


def job_with(field: str, value: Any) -> dict[str, Any]:
    job: dict[str, Any] = {"models": [{"id": "./m"}], "datasets": [{"name": "d", "path": "d.csv"}]}
    *parents, last = field.split(".")
    place: Any = job
    for number, parent in enumerate(parents):
        if parent.isdigit():
            place = place[int(parent)]
        else:
            after = parents[number + 1 : number + 2]
            place = place.setdefault(parent, [{}] if after and after[0].isdigit() else {})
    place[last] = value
    return job


def told(path: Any, job: Any) -> str:
    path.write_text(yaml.safe_dump(job, allow_unicode=True, sort_keys=False), encoding="utf-8")
    try:
        load_job(path)
    except JobError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses_in_plain_words(tmp_path, field):
    """A mistake is told with the field's place, and with nothing that only a library would say."""
    refusals = 0
    for value in VALUES:
        message = told(tmp_path / "job.yaml", job_with(field, value))
        found = [word for word in LIBRARY_WORDS if word in message]
        assert not found, (field, value, message[:500])
        assert len(message) < 3000, (field, message[:500])
        # What a dataset lacks for a position is told of the dataset.
        parts = (field.partition(".")[0], "datasets") if "positions" in field else (field.partition(".")[0],)
        assert all(any(p in line for p in parts) for line in message.splitlines()), (field, value, message[:500])
        refusals += bool(message)
    assert refusals >= 8, field


@pytest.mark.parametrize("part", ["models", "datasets", "extract", "measure", "project", "render", "run"])
@pytest.mark.parametrize("value", [None, 7, "", [], [None], [[]], {}, {"x": None}, True, 0.5], ids=repr)
def test_every_part_refuses_in_plain_words(tmp_path, part, value):
    message = told(tmp_path / "job.yaml", {"models": ["./m"], "datasets": ["d.csv"], part: value})
    assert not [word for word in LIBRARY_WORDS if word in message], message
    assert message or value in ({}, "") or (part == "models" and value == ""), (part, value)


@pytest.mark.parametrize(
    "field", ["extract.threads", "extract.batch_tokens", "measure.folds", "project.min_dist", "project.seed"]
)
def test_yes_is_no_number(tmp_path, field):
    """Python takes true for 1."""
    assert f"{field}: must be" in told(tmp_path / "job.yaml", job_with(field, True))


@pytest.mark.parametrize("field", ["extract.layers", "render.layers"])
def test_yes_is_no_layer(tmp_path, field):
    assert f"{field}: must be" in told(tmp_path / "job.yaml", job_with(field, [True, 2]))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name:foo\nmodels: [x]\n", "job.yaml:1: a blank is missing after the colon: `name: foo`"),
        ("models: [x]\ndatasets:d\n", "job.yaml:2: a blank is missing after the colon: `datasets: d`"),
        ("extract:\n\tdtype: x\n", "job.yaml:2: begins with a tab: YAML indents with blanks"),
        ("name:\tx\n", "job.yaml:1: holds a tab: write a blank"),
        ("name: 'abc\nmodels: [x]\n", "job.yaml:1: a quote that opens here is never closed"),
        ("models: [a, b\ndatasets: {d: x}\n", "job.yaml:1: a bracket that opens with [ is never closed"),
        ("datasets: {d: x\nmodels: [a]\n", "job.yaml:1: a bracket that opens with { is never closed"),
        ("models: [a, b]]\n", "job.yaml:1: a bracket that closes with ] was never opened"),
        ("name: a: b\n", "job.yaml:1: holds a second colon and blank: put text with `: ` in quotes"),
        ("models:\n  - a\n - b\n", "job.yaml:3: is not indented as the lines that it belongs to"),
        ("models: - a\n", "job.yaml:1: a list begins on the line below its field, each item with `- `"),
        ("template: {text} is\n", "job.yaml:1: text that begins with { stands in quotes"),
        ("template: {{text}}\n", "job.yaml:1: a field's name begins with a bracket"),
        (
            'path: "C:\\Users\\x"\n',
            "job.yaml:1: a backslash in double quotes begins an escape: take single quotes; a path",
        ),
        ("name: a\n  b: c\n", "job.yaml:2: is indented deeper than the line before"),
        ("delimiter: ,\n", "job.yaml:1: text that begins with , stands in quotes"),
        ("name: @a\n", "job.yaml:1: text that begins with @ stands in quotes"),
        ("datasets:\n- *.csv\n", "job.yaml:2: text that begins with * stands in quotes"),
        ("name: 'it's'\n", "job.yaml:1: text goes on after its closing quote"),
        ("a: 1\n---\nb: 1\n", "job.yaml:2: a second document begins (---): a job file holds one"),
        ("models: [a]\nmodels: [b]\n", "job.yaml:2: `models` is given twice"),
        ("models: [a]\nfoo\n", "job.yaml:2: is neither a field (`name: value`) nor an item of a list (`- value`)"),
        ("models\n  - a\n", "job.yaml: is text, not a job"),
        ("a: \0", "job.yaml: holds a character that YAML does not allow (U+0000)"),
    ],
)
def test_mistakes_in_yaml_are_told_in_plain_words(tmp_path, text, wanted):
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(JobError) as caught:
        load_job(tmp_path / "job.yaml")
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert message.startswith(wanted), message
    assert not [word for word in LIBRARY_WORDS if word in message], message
