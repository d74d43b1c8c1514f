"""The names that a job may use are those that the tables load."""

from __future__ import annotations

import pytest

from drillcore.api.export import FORMATS
from drillcore.backends import BACKENDS
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.stages import Measure, Project, Run
from drillcore.measures import METRICS
from drillcore.projections import PROJECTIONS
from drillcore.runtime.executors import EXECUTORS
from drillcore.store import arrays
from drillcore.system import tables
from drillcore.texts import formats


def test_every_name_of_a_job_is_loaded_by_a_table():
    assert set(tables.BACKENDS) == set(BACKENDS)
    assert set(tables.EXECUTORS) == set(EXECUTORS)
    assert list(METRICS) == tables.MEASURES
    assert {*tables.PROJECTION_BACKENDS, "pca"} - {"auto"} == set(PROJECTIONS)
    assert set(tables.PROJECTION_METHODS) == set(arrays.PROJECTIONS)
    assert list(FORMATS) == tables.EXPORTS
    assert set(tables.READERS) == set(formats.READERS)
    assert [suffix for reader in formats.READERS.values() for suffix in reader.suffixes] == tables.SUFFIXES


@pytest.mark.parametrize(
    ("section", "field", "names"),
    [
        (Extract, "backend", tables.BACKENDS),
        (Run, "executor", tables.EXECUTORS),
        (Project, "method", tables.PROJECTION_METHODS),
        (Project, "backend", tables.PROJECTION_BACKENDS),
    ],
)
def test_fields_take_these_names_and_no_other(section, field, names):
    for name in names:
        assert getattr(section(**{field: name}), field) == name
    with pytest.raises(ValueError, match=f"'{names[0]}x' is not one of .*did you mean `{names[0]}`"):
        section(**{field: names[0] + "x"})
    assert section.model_json_schema()["properties"][field]["enum"] == names


def test_measures_are_named_in_the_job_and_in_its_schema():
    assert Measure(metrics=["purity"]).metrics == ("purity",)
    with pytest.raises(ValueError, match="did you mean `purity`"):
        Measure(metrics=["purty"])
    assert tables.MEASURES in [
        branch["items"]["enum"]
        for branch in Job.model_json_schema()["$defs"]["Measure"]["properties"]["metrics"]["anyOf"]
        if "items" in branch
    ]
