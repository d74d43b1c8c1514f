"""What of docs/ is made from the code is as the code is."""

from __future__ import annotations

import pytest

from drillcore.job.fields import Job
from tools import job_reference, pages, python_reference
from tools.job_examples import EXAMPLES


@pytest.mark.parametrize(
    ("path", "made"),
    [
        (job_reference.PAGE, job_reference.page),
        (python_reference.PAGE, python_reference.page),
        (pages.NOT_RUN, pages.page_of_blocks_not_run),
    ],
    ids=["job", "python", "blocks-not-run"],
)
def test_a_page_made_from_the_code_is_up_to_date(path, made):
    assert (pages.ROOT / path).read_text(encoding="utf-8") == made(), "make reference"


def test_a_field_without_an_example_is_named(monkeypatch):
    monkeypatch.delitem(EXAMPLES, "run.retries")
    with pytest.raises(LookupError, match=r"run\.retries has no example"):
        job_reference.page()


def test_an_example_without_a_field_is_named(monkeypatch):
    monkeypatch.setitem(EXAMPLES, "run.speed", "speed: high")
    with pytest.raises(LookupError, match=r"do not exist: run\.speed"):
        job_reference.page()


def test_every_part_of_a_job_has_its_fields_in_the_reference():
    text = job_reference.page()
    for part, schema in Job.model_json_schema()["$defs"].items():
        for name in schema.get("properties", ()):
            assert f".{name}\n" in text, f"{part}.{name}"
