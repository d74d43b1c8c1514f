"""`drillcore plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from drillcore.cli.arguments import JobFile, Limit, Set, Store


def plan(
    job: JobFile,
    store: Store = None,
    set_: Set = None,
    limit: Limit = None,
    calibrate: Annotated[
        bool, typer.Option(help="Time what no earlier run tells: load each model, work for a few seconds.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; progress goes to stderr.")] = False,
) -> None:
    """Show a sentence of each dataset as it is encoded, and estimate what each stage will cost. Writes nothing."""
    import json

    from rich.console import Console

    from drillcore.api import planning
    from drillcore.cli.display import Lines, make_display
    from drillcore.cli.tables import write_line
    from drillcore.system.files import without_nan

    # Standard output is the document's alone.
    display = Lines(Console(stderr=True)) if as_json else make_display()
    planned = planning.plan(job, set=set_ or (), store=store, limit=limit, calibrate=calibrate, progress=display)
    if not as_json:
        for line in planned.lines():
            write_line(line)
        return
    for estimate in planned.groups:
        for line in estimate.example:
            display.say(line)
    write_line(json.dumps(without_nan(planned.to_dict()), indent=2, ensure_ascii=False))
