"""The command line: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml

from drillcore.cli.tables import align_columns
from drillcore.job.fields import Job
from drillcore.job.schema import job_schema


def drillcore(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "drillcore", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_doctor_says_what_is_there_and_how_to_get_the_rest():
    done = drillcore("doctor")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 0 and {"cpu", "gpu", "transformers", "vllm", "ray", "cuml", "browser"} <= set(lines)
    assert "yes" in lines["transformers"].split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "No such command"),
        (["run"], "Missing argument"),
        (["run", "nowhere.yaml"], "there is no job file"),
        (["show", "nowhere.zarr"], "there is no store"),
        (["schema", "store"], "there is no schema"),
    ],
)
def test_mistakes_are_exit_2_and_one_plain_message(arguments, said, tmp_path):
    done = drillcore(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_help_names_the_command():
    assert drillcore("--help").stdout.split()[:3] == ["Usage:", "drillcore", "[OPTIONS]"]


def test_the_schema_accepts_what_the_job_reader_accepts():
    schema = json.loads(job_schema())
    short = {"models": ["a/b"], "datasets": {"x": "x.jsonl"}}
    long = Job.model_validate(short).model_dump(mode="json", by_alias=True, exclude_none=True)
    for job in (short, long):
        jsonschema.validate(job, schema)
        Job.model_validate(job)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**short, "modles": []}, schema)


def test_plan_writes_nothing(tmp_path, models):
    (tmp_path / "texts.txt").write_text("one sentence\none sentence more\nanother\n", encoding="utf-8")
    job = {"models": [str(models("llama"))], "datasets": {"few": "texts.txt"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    for extra in ([], ["--no-calibrate"]):
        done = drillcore("plan", "job.yaml", *extra, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        cells = done.stdout.splitlines()[-1].split()
        # Bytes and a beginning-of-sentence token: 13 + 18 + 8, of which the second sentence shares 13.
        assert cells[2:5] == ["3", "39", "26"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job.yaml", "texts.txt"]


def test_columns():
    assert list(align_columns([("name", "n"), ("a", "1"), ("b", "20")])) == ["name   n", "a      1", "b     20"]
