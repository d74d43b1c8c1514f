"""The report of a run: its curves and grids on one page, behind an overview of what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from drillcore.pictures.data import Report, ReportDataset
from drillcore.pictures.report.write import write_report
from drillcore.runtime.context import Context
from drillcore.runtime.stages.render.curves import CurvesPlan, report_charts
from drillcore.runtime.stages.render.grids import GridPlan, build_grid, over_models
from drillcore.runtime.stages.render.points import Texts
from drillcore.runtime.stages.render.tables import overview
from drillcore.store.writer import GroupWriter

REPORT = "report.html"


def report_inputs(context: Context) -> list[Any]:
    """What the report depends on beside its curves, JSON-ready."""
    method = context.job.project.method
    tables = [[t.title, t.header, t.rows] for t in overview(context)]
    return [tables, [plan.inputs(method) for plan in _plans(context)]]


def draw_report(context: Context, curves: list[CurvesPlan]) -> Path:
    """Write the report beside the pictures and return its path."""
    job = context.job
    # The page wraps its rows: columns of equal depth would not stand under each other.
    settings = job.render.model_copy(update={"align_depth": False})
    datasets = []
    for plan in _plans(context):
        grid = build_grid(plan, settings, job.project)
        first = plan.members[0][1]
        texts = Texts(first.group, "text")
        datasets.append(ReportDataset(plan.title, texts, replace(grid, title=plan.title), _notes(first)))
    subtitle = "Last-token hidden states of every layer: how well they separate the labels, and what they look like."
    footer = "Made by drillcore. This file holds all that it shows and asks the network for nothing."
    charts, note = report_charts(curves)
    page = Report(job.name, subtitle, overview(context), charts, tuple(datasets), footer, note)
    return write_report(page, context.out / REPORT)


def _plans(context: Context) -> list[GridPlan]:
    """A grid for each dataset, models as rows."""
    return [over_models(context, d.name, d.name) for d in context.job.datasets]


def _notes(writer: GroupWriter) -> Texts | tuple[str, ...]:
    """What stands beside a sentence."""
    return Texts(writer.group, "expected_next", "expected next: {}") if "expected_next" in writer.group else ()
