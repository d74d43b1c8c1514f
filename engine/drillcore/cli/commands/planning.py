"""`drillcore plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from drillcore.cli.arguments import JobFile, Json, Limit, Set, Store


def plan(
    job: JobFile,
    store: Store = None,
    set_: Set = None,
    limit: Limit = None,
    calibrate: Annotated[
        bool, typer.Option(help="Time what no earlier run tells: load each model, work for a few seconds.")
    ] = True,
    json: Json = False,
) -> None:
    """Show a sentence of each dataset as it is encoded, and estimate what each stage will cost. Writes nothing."""
    from drillcore.api import planning
    from drillcore.cli.display import make_display
    from drillcore.cli.tables import write_json, write_line

    display = make_display()
    planned = planning.plan(job, set=set_ or (), store=store, limit=limit, calibrate=calibrate, progress=display)
    if not json:
        for line in planned.lines():
            write_line(line)
        return
    for estimate in planned.groups:
        for line in estimate.example:
            display.say(line)
    write_json(planned.to_dict())
