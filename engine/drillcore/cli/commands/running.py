"""Commands that run stages of a job."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drillcore.cli.arguments import JobFile, Limit, Out, Overwrite, Set, Store, Yes
from drillcore.errors import InterruptedRun
from drillcore.runtime.stages import ALL_STAGES

if TYPE_CHECKING:
    from drillcore.cli.display import Display
    from drillcore.job.fields import LoadedJob


def _stages(
    job: Path,
    stages: Sequence[str],
    store: str | None,
    sets: list[str] | None,
    limit: int | None,
    out: Path | None,
    overwrite: bool,
    yes: bool,
) -> None:
    from drillcore.cli.display import make_display
    from drillcore.job.file import load_job
    from drillcore.runtime.runner import run_stages

    loaded = _allowed(load_job(job, sets or (), store, limit), yes)
    display = make_display()
    _run_to_its_end(loaded, stages, display, lambda: run_stages(loaded, stages, display, out, overwrite=overwrite))


def _allowed(loaded: LoadedJob, yes: bool) -> LoadedJob:
    """The job with any number of bytes allowed for every token's states, where the user says yes to that."""
    from drillcore.job.groups import allow_sizes

    return loaded.model_copy(update={"job": allow_sizes(loaded.job)}) if yes else loaded


def _run_to_its_end(loaded: LoadedJob, stages: Sequence[str], display: Display, run: Callable[[], Path]) -> None:
    """Run, and say where the results are. run: gives the folder beside the store."""
    from drillcore.cli.tables import write_line

    try:
        try:
            folder = run()
        finally:
            display.close()
        report = folder / "report.html"
        drawn = f", report {_short(str(report))}" if "render" in stages and report.exists() else ""
        write_line(f"done: store {_short(loaded.store)}, results in {_short(str(folder))}{drawn}")
    except KeyboardInterrupt:
        raise InterruptedRun(
            "interrupted; what was committed is kept", hint="Run the same command again to go on."
        ) from None


def _short(path: str) -> str:
    """A path relative to the working directory where it lies below it."""
    relative = os.path.relpath(path) if not path.startswith("s3://") else path
    return path if relative.startswith("..") else relative


def _stage_command(stages: Sequence[str]) -> Callable[..., None]:
    """A command that runs some stages of a job."""

    def command(
        job: JobFile,
        store: Store = None,
        set_: Set = None,
        limit: Limit = None,
        out: Out = None,
        overwrite: Overwrite = False,
        yes: Yes = False,
    ) -> None:
        _stages(job, stages, store, set_, limit, out, overwrite, yes)

    if "extract" not in stages:
        # Nothing is there that it could overwrite.
        options = inspect.signature(command, eval_str=True)
        kept = [p for p in options.parameters.values() if p.name not in ("overwrite", "yes")]
        vars(command)["__signature__"] = options.replace(parameters=kept)
    return command


def append(
    job: JobFile,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name of a dataset of the job.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of rows with the same fields.")],
    run: Annotated[bool, typer.Option(help="Run the job afterwards, as `drillcore run` does.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Add rows that the file ends in already once more.")] = False,
    store: Store = None,
    set_: Set = None,
    out: Out = None,
    overwrite: Overwrite = False,
    yes: Yes = False,
) -> None:
    """Add rows at the end of a dataset's file, the last of several, and run the job, which computes only those."""
    from contextlib import closing

    from drillcore.api.append import after_adding, check_rows, lines_on, what_follows
    from drillcore.cli.display import make_display
    from drillcore.cli.tables import write_line
    from drillcore.job.file import load_job
    from drillcore.runtime.appending import add_rows
    from drillcore.runtime.runner import check_run, run_stages
    from drillcore.runtime.session import Session
    from drillcore.texts.adding.given import read_files

    loaded = _allowed(load_job(job, set_ or (), store), yes)

    def check(staged: LoadedJob) -> None:
        if run:
            check_run(staged, ALL_STAGES, session, out, overwrite=overwrite)
        else:
            check_rows(staged)

    with closing(Session()) as session:
        added = add_rows(loaded, dataset, lambda *to: read_files(files, *to), check, again=again)
        if not run:
            later = f"; `drillcore run {job}` computes them" if added.rows else ""
            write_line("; ".join(lines_on(added)) + later)
            return
        display = make_display()
        display.say("; ".join([*lines_on(added), what_follows(loaded, added)]))
        with after_adding(added):
            _run_to_its_end(
                loaded,
                ALL_STAGES,
                display,
                lambda: run_stages(loaded, ALL_STAGES, display, out, overwrite=overwrite, session=session),
            )


STAGE_COMMANDS = {
    "run": (_stage_command(ALL_STAGES), "Run every stage of a job; skips what is already done."),
    "extract": (_stage_command(("extract",)), "Extract hidden states into the store."),
    "measure": (_stage_command(("measure",)), "Measure how well each layer separates the labels."),
    "predict": (_stage_command(("predict",)), "Predict next tokens and candidates through the model's own head."),
    "project": (_stage_command(("project",)), "Project each layer to two dimensions."),
    "render": (_stage_command(("render",)), "Draw the pictures."),
}
"""Name of a command: the command, and its help."""
