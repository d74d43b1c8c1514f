"""Commands that run stages of a job."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from drillcore.cli.arguments import JobFile, Limit, Out, Overwrite, Set, Store, Yes
from drillcore.errors import InterruptedRun
from drillcore.runtime.stages import ALL_STAGES


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
    from drillcore.cli.tables import write_line
    from drillcore.job.file import load_job
    from drillcore.job.groups import allow_sizes
    from drillcore.runtime.runner import run_stages

    loaded = load_job(job, sets or (), store, limit)
    if yes:
        loaded = loaded.model_copy(update={"job": allow_sizes(loaded.job)})
    display = make_display()
    try:
        try:
            folder = run_stages(loaded, stages, display, out, overwrite=overwrite)
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


STAGE_COMMANDS = {
    "run": (_stage_command(ALL_STAGES), "Run every stage of a job; skips what is already done."),
    "extract": (_stage_command(("extract",)), "Extract hidden states into the store."),
    "measure": (_stage_command(("measure",)), "Measure how well each layer separates the labels."),
    "predict": (_stage_command(("predict",)), "Predict next tokens and candidates through the model's own head."),
    "project": (_stage_command(("project",)), "Project each layer to two dimensions."),
    "render": (_stage_command(("render",)), "Draw the pictures."),
}
"""Name of a command: the command, and its help."""
