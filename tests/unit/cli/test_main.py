"""The command line: what it prints, and its exit statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import jsonschema
import pytest
import yaml

from drillcore.job.fields import Job
from drillcore.job.schema import job_schema
from drillcore.system.columns import align_columns


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
        (["nothing"], "there is no command 'nothing'"),
        (["shwo"], "there is no command 'shwo'; did you mean 'show'?"),
        (
            ["run", "job.yaml", "--limt", "3"],
            "there is no option --limt; did you mean `--limit`?\n  `drillcore run --help`",
        ),
        (["run", "job.yaml", "--limit", "x"], "--limit: must be a whole number (given: x)"),
        (["run", "job.yaml", "--limit", "0"], "--limit: must be a whole number of at least 1 (given: 0)"),
        (["bench", "m", "--out", "o", "--batch-tokens", "9999999"], "must be a whole number of at most 4,194,304"),
        (["run"], "an argument is missing: 'JOB'"),
        (["run", "job.yaml", "more"], "there are more arguments than it takes: (more)"),
        (["run", "nowhere.yaml"], "there is no job file"),
        (["run", "nowhere.yaml", "--layers", "3"], "set by `--set extract.layers=...` or `--set render.layers=...`"),
        (["run", "nowhere.yaml", "--batch-tokens", "3"], "is set by `--set extract.batch_tokens=...`"),
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
        (cells,) = [line.split() for line in done.stdout.splitlines() if line.split()[1:3] == ["few", "3"]]
        # Bytes and a beginning-of-sentence token: 13 + 18 + 8, of which the second sentence shares 13.
        assert cells[2:5] == ["3", "39", "26"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job.yaml", "texts.txt"]


def test_plan_shows_a_sentence_of_each_dataset_as_it_is_encoded(tmp_path, models):
    shutil.copytree(models("llama"), tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    template = "<s>system\nBe brief.{% if not thinking %} Do not think.{% endif %} {{ messages[0]['content'] }}"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": template}))
    (tmp_path / "texts.txt").write_text("one sentence\nanother\n", encoding="utf-8")
    datasets = [{"name": "plain", "path": "texts.txt"}, {"name": "asked", "path": "texts.txt", "template": "chat"}]
    job = {"models": [{"id": "./model", "as": "m"}], "datasets": datasets}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    done = drillcore("plan", "job.yaml", "--no-calibrate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        "m/plain, the first sentence as it is encoded: 'one sentence'\n  the tokenizer adds <s> before it\n"
        in done.stdout
    )
    vocabulary = json.loads((tmp_path / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    last = ", ".join(f"{letter!r} ({vocabulary[letter]})" for letter in "tence")
    assert f"its last 5 of 13 tokens: {last}; the last one's states are taken" in done.stdout
    shown = "'<s>system\\nBe brief. Do not think. one sentence'"
    assert f"m/asked, the first sentence as it is encoded: {shown}\n  its last 5 of" in done.stdout
    done = drillcore("plan", "job.yaml", "--no-calibrate", "--set", "datasets.1.chat.thinking=true", cwd=tmp_path)
    assert "Be brief. one sentence" in done.stdout


def test_columns():
    assert list(align_columns([("name", "n"), ("a", "1"), ("b", "20")])) == ["name   n", "a      1", "b     20"]
