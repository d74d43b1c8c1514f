"""The table of stages, in the order of a run: each is a readable page of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drillcore.runtime.context import Context

STAGES = {
    "extract": "drillcore.runtime.stages.extract.stage:extract",
    "measure": "drillcore.runtime.stages.measure:measure",
    "predict": "drillcore.runtime.stages.predict.stage:predict",
    "project": "drillcore.runtime.stages.project:project",
    "render": "drillcore.runtime.stages.render.stage:render",
}
ALL_STAGES = tuple(STAGES)


def load_stage(name: str) -> Callable[[Context], None]:
    """The function of a stage, one of `STAGES`; what it imports is imported now."""
    module, _, function = STAGES[name].partition(":")
    stage: Callable[[Context], None] = getattr(importlib.import_module(module), function)
    return stage
