"""The report of a run: an overview of what was done, curves and grids, on one page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from drillcore.job.fields import Job
from drillcore.measures import OF_NUMBERS
from drillcore.pictures.data import Report, ReportDataset
from drillcore.pictures.report.write import write_report
from drillcore.runtime.context import Context
from drillcore.runtime.results import Measured, read_separation
from drillcore.runtime.stages.nearest import NEAREST
from drillcore.runtime.stages.render.answer import answer_of
from drillcore.runtime.stages.render.choices import choice_inputs, choices_of
from drillcore.runtime.stages.render.curves import CurvesSpec, report_charts
from drillcore.runtime.stages.render.grids import FIGURES, GridSpec, build_grid, colored_by, over_models
from drillcore.runtime.stages.render.nearest import nearest_of
from drillcore.runtime.stages.render.points import Texts, states_in_words, texts_of
from drillcore.runtime.stages.render.tables import overview
from drillcore.store.writer import GroupWriter

REPORT = "report.html"


def report_inputs(context: Context) -> list[Any]:
    """What the report depends on besides its curves, JSON-ready."""
    method = context.job.project.method
    tables = [[t.title, t.header, t.rows] for t in overview(context)]
    specs = _specs(context)
    nearest = [writer.result_made_from(NEAREST) for spec in specs for _, writer in spec.members]
    return [tables, [[*spec.inputs(method), choice_inputs(context, spec)] for spec in specs], nearest]


def draw_report(context: Context, curves: list[CurvesSpec]) -> Path:
    """Write the report beside the pictures and return its path."""
    job = context.job
    # The page wraps rows of panels, so that columns of equal depth would not be aligned.
    settings = job.render.model_copy(update={"align_depth": False})
    datasets = []
    for spec in _specs(context):
        grid = build_grid(spec, settings, job.project)
        first = spec.members[0][1]
        texts = texts_of([writer.group for _, writer in spec.members])
        store = context.store.location.address.rsplit("/", 1)[-1]
        nearest = [nearest_of(writer.group, settings, store) for _, writer in spec.members]
        rows = tuple(replace(row, nearest=own) for row, own in zip(grid.rows, nearest, strict=True))
        grid, choices = replace(grid, title=spec.title, rows=rows), choices_of(context, spec)
        notes, recolours = _notes(job, first), bool(spec.label)
        datasets.append(ReportDataset(spec.title, texts, grid, notes, recolours, choices))
    what = states_in_words(writer.group for spec in _specs(context) for _, writer in spec.members)
    primaries = {m.primary for m in _measured(context) if m is not None}
    do = "predict" if primaries == {OF_NUMBERS} else "tell of" if OF_NUMBERS in primaries else "separate"
    kinds = [FIGURES[primary] for primary in sorted(primaries)]
    figure = f"{' or '.join(kinds)} of the linear probe"
    charts, note = report_charts(curves)
    answer = answer_of(context, charts)
    how_well = f"how well they {do} the labels, and " if answer is not None else ""
    subtitle = f"{what[0].upper()}{what[1:]} of every layer: {how_well}what they look like."
    footer = "Made by drillcore. This file holds all that it shows and asks the network for nothing."
    about = (footer, note, answer, figure, job.render.color)
    page = Report(job.name, subtitle, overview(context), charts, tuple(datasets), *about)
    return write_report(page, context.out / REPORT)


def _specs(context: Context) -> list[GridSpec]:
    """A grid for each dataset that is projected, and for each of its labels, models as rows."""
    specs = list[GridSpec]()
    for group in context.job.measured_groups:
        for label in colored_by(context.job, [group]):
            spec = over_models(context, group, group.name, label)
            if group.position.is_ragged and len(spec.members) > 1:
                # Rows are tokens, and those of another model are others.
                each = [(f"{spec.title} · {title}", (("", w),)) for title, w in spec.members]
                specs += [replace(spec, title=title, members=members) for title, members in each]
            else:
                specs.append(spec)
    return [spec for spec in specs if spec.members]


def _measured(context: Context) -> Iterator[Measured | None]:
    """The measures of every group by each of its labels."""
    for model in context.job.models:
        for group in context.job.measured_groups:
            for label in ("", *group.more_labels):
                yield read_separation(context.store.dataset(model.group, group.name).group, label)


def _notes(job: Job, writer: GroupWriter) -> Texts | tuple[str, ...]:
    """Notes beside the sentences: the expected next tokens, if the dataset has any; they follow its own last tokens."""
    dataset = next(g for g in job.groups if g.name == writer.group.path.partition("/")[2])
    is_expected = "expected_next" in writer.group and dataset.expected_next is not None
    return Texts(writer.group, "expected_next", "expected next: {}") if is_expected else ()
