"""A mistake in a job file is one line: where it is, what may stand there, and the nearest right name."""

from __future__ import annotations

import pytest

from drillcore.errors import JobError
from drillcore.job.file import load_job
from drillcore.system import tables


@pytest.fixture
def message(tmp_path):
    """What is said of a job file that ends in `section`."""

    def of(section):
        path = tmp_path / "job.yaml"
        path.write_text(f"models: [./m]\ndatasets: {{d: a.txt}}\n{section}\n", encoding="utf-8")
        with pytest.raises(JobError) as caught:
            load_job(path)
        return str(caught.value).replace(f"{path}:3: ", "")

    return of


BACKENDS = "auto, transformers, vllm, fake"


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ("extract: {backend: vlm}", f"extract.backend: 'vlm' is not one of {BACKENDS}; did you mean `vllm`?"),
        ("extract: {backend: 3}", f"extract.backend: 3 is not one of {BACKENDS}"),
        ("extract: {backend: }", f"extract.backend: null is not one of {BACKENDS}"),
        ("extract: {backend: [vllm]}", f"extract.backend: ['vllm'] is not one of {BACKENDS}"),
        ("run: {executor: Ray}", "run.executor: 'Ray' is not one of local, ray; did you mean `ray`?"),
        (
            "measure: {metrics: [probe, purty]}",
            f"measure.metrics.1: 'purty' is not one of {', '.join(tables.MEASURES)}; did you mean `purity`?",
        ),
        (
            "measure: {metrics: probe}",
            f"measure.metrics: must be all, or a list of names out of {', '.join(tables.MEASURES)} (given: 'probe'); "
            "a list is written ['probe']",
        ),
        (
            "extract: {dtype: flot16}",
            "extract.dtype: must be auto, float32, bfloat16 or float16 (given: 'flot16'); did you mean `float16`?",
        ),
        (
            "extract: {layers: [last]}",
            "extract.layers.0: 'last' is not a layer: a number (-1 is the last one), embed, block_12 or final_norm",
        ),
        ("extract: {threads: x}", "extract.threads: must be auto, or a whole number from 1 to 1,024 (given: 'x')"),
        (
            "render: {layers: [x, 1]}",
            "render.layers.0: must be a whole number of at least 0 (given: 'x')",
        ),
        ("render: {panels: 3}", "render.panels: unknown field; did you mean `panel_px`?"),
        ("extract: {dtype: 2001-99-99}", "'2001-99-99' is not a valid date: put it in quotes if it is text"),
    ],
)
def test_one_mistake_is_one_line(message, section, wanted):
    assert message(section) == wanted


def test_several_mistakes_are_a_line_each(message):
    assert message("extract: {backend: vlm, threads: 0, layrs: all}").splitlines() == [
        f"extract.backend: 'vlm' is not one of {BACKENDS}; did you mean `vllm`?",
        "extract.threads: must be auto, or a whole number from 1 to 1,024 (given: 0)",
        "extract.layrs: unknown field; did you mean `layers`?",
    ]


def test_a_name_that_is_added_to_a_table_may_be_used(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("models: [./m]\ndatasets: {d: a.txt}\nextract: {backend: toy}\n", encoding="utf-8")
    tables.BACKENDS.append("toy")
    try:
        assert load_job(path).job.extract.backend == "toy"
    finally:
        tables.BACKENDS.remove("toy")
