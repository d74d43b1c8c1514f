"""The recorded first hour: its commands are run with tiny models, and the page holds the same commands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.tiny import tiny_model
from tools import first_hour


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Every step after the installation, with the programs of this environment."""
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny")
    return first_hour.record(tmp_path_factory.mktemp("films"), Path(sys.executable).parent, str(model), str(model))


def output(recorded, start: str, number: int = 0) -> str:
    return [step.output for step in recorded.steps if step.command.startswith(start)][number]


@pytest.mark.timeout(1200)
def test_every_command_ends_as_it_should(recorded):
    statuses = [step.status for step in recorded.steps]
    assert statuses == [0] * (len(statuses) - 3) + [130, 0, 0], [
        (s.command, s.status, s.output) for s in recorded.steps
    ]


def test_the_job_is_about_the_columns(recorded):
    job = output(recorded, "cat reviews.yaml")
    assert "text: sentence" in job and "label: opinion" in job and "./my-model" in job
    assert "reviews.csv: 200 rows" in output(recorded, "drillcore init")


def test_plan_tells_every_stage(recorded):
    planned = output(recorded, "drillcore plan")
    assert all(f"\n{stage} " in planned for stage in ("extract", "measure", "project", "render", "all stages"))


def test_a_second_run_computes_what_is_new_alone(recorded):
    first, second = (output(recorded, "drillcore run reviews.yaml", n) for n in (0, 1))
    assert "done: store runs/reviews.zarr" in first and "report runs/reviews/report.html" in first
    assert second.count("all 200 sentences are up to date") == 2 and "random-weights: 200 sentences in" in second
    assert second.count("projection is up to date") == 2


def test_an_interrupted_run_goes_on(recorded):
    broken, resumed = (output(recorded, "drillcore run reviews.yaml --store", n) for n in (0, 1))
    assert "interrupted; what was committed is kept" in broken and "done:" not in broken
    assert resumed.count("all 200 sentences are up to date") == 3 and "measures are up to date" in resumed
    assert "runs/second.zarr: whole" in output(recorded, "drillcore verify")


def test_the_page_has_these_commands(recorded):
    def typed(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("$ ")]

    (init,) = [step.command for step in recorded.steps if step.command.startswith("drillcore init")]
    model = init.split()[4]
    here = first_hour.page(recorded.steps).replace(f"copy_model.py {model}", "copy_model.py $(drillcore demo-model)")
    here = here.replace(model, first_hour.DEMO)
    there = typed(first_hour.PAGE.read_text(encoding="utf-8"))
    assert there[3:] == typed(here) and there[0] == "$ python3 -m venv env"
