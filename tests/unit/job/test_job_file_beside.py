"""A job file that is not there: the one beside it that is meant is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from drillcore.errors import JobError
from drillcore.job.file import load_job


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("cities.yml", "There is cities.yaml in the same folder."),
        ("citeis.yaml", "There is cities.yaml in the same folder."),
        ("cities", "There is cities.yaml in the same folder."),
        ("other.yaml", "Check the path."),
        ("nowhere/cities.yaml", "Check the path."),
    ],
)
def test_the_nearest_job_file_is_named(tmp_path: Path, asked: str, hint: str) -> None:
    (tmp_path / "cities.yaml").write_text("models: [a/b]\n", encoding="utf-8")
    (tmp_path / "other").mkdir()
    with pytest.raises(JobError, match="there is no job file") as refused:
        load_job(tmp_path / asked)
    assert refused.value.hint == hint
