"""Commands for the first steps: a job file for one's own texts, and the demo."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from drillcore.cli.tables import write_line


def init(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of texts: CSV, TSV, JSONL, Parquet, txt.")
    ],
    model: Annotated[list[str] | None, typer.Option("--model", metavar="ID", help="A hub id or folder; again.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The job file; by default STEM.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the job file.")] = False,
) -> None:
    """Look at files of texts and write a job file with comments for them."""
    from drillcore.api.new_job import new_job
    from drillcore.cli.display import make_display

    display = make_display()
    job = new_job(files, model or (), out, display, force=force)
    job.write()
    for line in job.reasons:
        display.say(line)
    name = quote(str(job.path))
    write_line(f"wrote {job.path}; every row was read as a run reads it")
    write_line(f"next: drillcore plan {name}, then drillcore run {name}")


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the job, its texts and its results.")] = Path(
        "drillcore-demo"
    ),
    write_only: Annotated[bool, typer.Option("--write-only", help="Write the job and its texts; run nothing.")] = False,
) -> None:
    """Write the demo's job and texts into a folder and run it: a real model, from sentences to pictures."""
    from drillcore.api.demo import missing_files, refuse_missing_packages, write_demo
    from drillcore.backends.demo_model import demo_directory, ensure_demo_model
    from drillcore.cli.commands.running import STAGE_COMMANDS
    from drillcore.cli.display import make_display

    display = make_display()
    missing = missing_files(folder)
    if not write_only:
        refuse_missing_packages()
        if not demo_directory().exists():
            display.say("fetching and converting the demo model, once (SmolLM2-135M-Instruct, 4-bit weights, 90 MB)")
        ensure_demo_model()
    job = write_demo(folder)
    write_line(f"{folder}: " + (f"wrote {', '.join(missing)}" if missing else "the demo is there already; it goes on"))
    if write_only:
        write_line(f"run it: drillcore run {quote(str(job))}")
        return
    run, _ = STAGE_COMMANDS["run"]
    run(job)
    runs = folder / "runs"
    write_line(f"next: open {runs / 'demo' / 'report.html'} in a browser; drillcore show {quote(f'{runs}/demo.zarr')}")
