"""The command line: arguments, printing, exit status. The only part that prints, and the only one that exits."""

from __future__ import annotations

import inspect
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from drillcore.cli.tables import write_line
from drillcore.errors import DrillcoreError, InterruptedRun
from drillcore.runtime.stages import ALL_STAGES
from drillcore.system.machine import few_arenas
from drillcore.system.progress import telling
from drillcore.system.signals import stoppable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Last-token hidden states of every layer of language models: extract, measure, project, render.",
)

# Exit status of a command that was interrupted.
INTERRUPTED = 130
# Characters of one line of a message.
LONGEST = 2000

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file.")]
StoreName = Annotated[str, typer.Argument(metavar="STORE", help="Path or s3:// address of a store.")]
Store = Annotated[str | None, typer.Option("--store", help="Override the job's store.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one field of the job.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="First N sentences of each dataset, into a store of its own.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Compute states again, or drop them, where the job changed.")
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Store every token's states (`positions: [all]`), however large they are.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for manifest, pictures and logs.")]


def main() -> None:
    """Run the command; ends the process with its exit status."""
    few_arenas()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding has no character for some names.
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        with stoppable(), telling(lambda line: write_line(line, sys.stderr)):
            # What ends a command by itself, an interrupt among it, is returned here and not raised.
            status = app(arguments, prog_name="drillcore", standalone_mode=False)
            if status == INTERRUPTED:
                raise KeyboardInterrupt
            if status:
                sys.exit(status)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        status, message = _ending(error)
        if debug and not isinstance(error, KeyboardInterrupt):
            message = traceback.format_exc()
        write_line("\n".join(map(_cut, message.split("\n"))), sys.stderr)
        sys.exit(status)


def _ending(error: BaseException) -> tuple[int, str]:
    """Exit status and message for what ended a command."""
    if isinstance(error, DrillcoreError):
        return error.exit_status, f"drillcore: {error}" + (f"\n  {error.hint}" if error.hint else "")
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return INTERRUPTED, "drillcore: interrupted"
    if hasattr(error, "format_message"):  # a usage error, raised by the click inside typer
        return 2, f"drillcore: {error.format_message()}"
    what = f"drillcore: unexpected {type(error).__name__}: {error}"
    return 1, f"{what}\n  This is a bug in drillcore: run again with --debug and report the output."


def _cut(line: str) -> str:
    """A line without its middle where it is very long: names and arguments are repeated in messages."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"


def _console() -> Any:
    from rich.console import Console

    return Console()


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
    from drillcore.job.groups import allow_sizes
    from drillcore.runtime.runner import run_stages

    loaded = load_job(job, sets or (), store, limit)
    if yes:
        loaded = loaded.model_copy(update={"job": allow_sizes(loaded.job)})
    display = make_display(_console())
    try:
        try:
            folder = run_stages(loaded, stages, display, out, overwrite=overwrite)
        finally:
            display.close()
        display.say(f"done: store {_short(loaded.store)}, results in {_short(str(folder))}")
    except KeyboardInterrupt:
        raise InterruptedRun(
            "interrupted; what was committed is kept", hint="Run the same command again to go on."
        ) from None


def _short(path: str) -> str:
    """A path relative to the working directory where it lies below it."""
    relative = os.path.relpath(path) if not path.startswith("s3://") else path
    return path if relative.startswith("..") else relative


def _stage_command(name: str, stages: Sequence[str], help_text: str) -> None:
    """Add a command that runs some stages of a job."""

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
    app.command(name, help=help_text)(command)


_stage_command("run", ALL_STAGES, "Run every stage of a job; skips what is already done.")
_stage_command("extract", ("extract",), "Extract hidden states into the store.")
_stage_command("measure", ("measure",), "Measure how well each layer separates the labels.")
_stage_command("predict", ("predict",), "Predict next tokens and candidates through the model's own head.")
_stage_command("project", ("project",), "Project each layer to two dimensions.")
_stage_command("render", ("render",), "Draw the pictures.")


@app.command()
def plan(
    job: JobFile,
    set_: Set = None,
    limit: Limit = None,
    calibrate: Annotated[bool, typer.Option(help="Load each model and time it for a few seconds.")] = True,
) -> None:
    """Show a sentence of each dataset as it is encoded, and estimate what the job will cost. Writes nothing."""
    from drillcore.cli.display import make_display
    from drillcore.cli.plan import estimate, faster_in_bfloat16
    from drillcore.cli.tables import align_columns
    from drillcore.job.file import load_job

    display = make_display(_console())
    estimates = []
    rows = [("model", "dataset", "rows", "tokens", "nodes", "shared", "padding", "raw", "on disk", "time")]
    for e in estimate(load_job(job, set_ or (), None, limit), display, calibrate=calibrate):
        shared = f"{1 - e.num_nodes / max(1, e.num_tokens):.0%}"
        padding = f"{e.num_padding / max(1, e.num_nodes + e.num_padding):.1%}"
        spent = "not timed" if e.seconds is None else f"{e.seconds:,.0f} s"
        counts = (f"{e.num_rows:,}", f"{e.num_tokens:,}", f"{e.num_nodes:,}", shared, padding)
        if e.within:
            counts, spent = (counts[0], "", "", "", ""), f"with {e.within}"
        rows.append((e.model, e.dataset, *counts, _size(e.raw_bytes), _size(e.disk_bytes), spent))
        for line in e.example:
            display.say(line)
        estimates.append(e)
    for line in [*align_columns(rows), *faster_in_bfloat16(estimates)]:
        display.say(line)


def _size(num_bytes: int) -> str:
    """A number of bytes in its natural unit: three digits, B to TB.

    >>> _size(1234), _size(5 * 10**12)
    ('1.23 kB', '5.0 TB')
    """
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


@app.command()
def show(store: StoreName) -> None:
    """Show what a store holds and how complete it is."""
    from drillcore.cli.show import store_lines

    for line in store_lines(store):
        write_line(line)


@app.command()
def export(
    store: StoreName,
    layer: Annotated[str, typer.Option("--layer", metavar="K", help="Number or name of the layer.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="parquet, npy, anndata or embedding-atlas.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    group: Annotated[
        str | None, typer.Option("--group", metavar="MODEL/DATASET", help="One of several groups.")
    ] = None,
) -> None:
    """Write one layer with its sentences as a file for notebooks and other viewers."""
    from drillcore.cli.export import export_layer

    for line in export_layer(store, layer, to, out, group):
        write_line(line)


@app.command()
def compare(
    store: StoreName,
    a: Annotated[str, typer.Argument(metavar="A", help="A group: MODEL/DATASET.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    metric: Annotated[list[str] | None, typer.Option(help="Measures; by default both dispersions.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the rows to this CSV file.")] = None,
) -> None:
    """Compare two groups layer by layer: which is tighter or separates better, and by how much."""
    from drillcore.cli.compare import comparison_lines

    for line in comparison_lines(store, a, b, metric or (), csv):
        write_line(line)


@app.command()
def rm(
    store: StoreName,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="MODEL/DATASET, or MODEL for all its datasets.")],
) -> None:
    """Remove a group from a store, such as that of a dataset that left the job."""
    from drillcore.cli.remove import removal_lines

    for line in removal_lines(store, group):
        write_line(line)


@app.command()
def verify(
    store: StoreName,
    out: Out = None,
    recompute: Annotated[
        int | None, typer.Option("--recompute", metavar="N", min=0, help="Compute N sentences of each group again.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Read the models' files again: are they those the store records?")
    ] = False,
) -> None:
    """Check checksums, fingerprints and values of a store; exit status 1 if anything is damaged."""
    from drillcore.cli.verify import verify_lines

    for line in verify_lines(store, out, recompute, models=models):
        write_line(line)


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Hub ids or directories.")],
    out: Annotated[Path, typer.Option("--out", help="JSON file of results; a second call continues it.")],
    texts: Annotated[Path | None, typer.Option(help="A file of sentences.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Random sentences instead, e.g. uniform:8-64.")] = None,
    sentences: Annotated[int | None, typer.Option(min=1, max=10**7, help="Maximum number of sentences.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Backends to compare.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Dtypes to compare.")] = None,
    batch_tokens: Annotated[list[int] | None, typer.Option(min=1, max=2**22, help="Token budgets to compare.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Random weights: read configurations only.")] = False,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; the cases take turns.")] = 3,
) -> None:
    """Measure the throughput of models, backends, dtypes and token budgets on this machine."""
    from drillcore.cli.bench.run import BenchSettings, make_cases, run_bench, table_of
    from drillcore.cli.tables import align_columns

    cases = make_cases(models, backend or ["transformers"], dtype or ["auto"], batch_tokens or ["auto"], random_weights)
    settings = BenchSettings(texts=texts, lengths=lengths, num_sentences=sentences, repeats=repeats)
    header, cells = table_of(run_bench(cases, settings, out, write_line))
    for line in align_columns([header, *cells]):
        write_line(line)


@app.command()
def doctor() -> None:
    """List what this machine can run, and how to install the rest."""
    from drillcore.cli.doctor import parts
    from drillcore.cli.tables import align_columns

    rows = [(p.name, "yes" if p.present else "no", p.detail if p.present else p.remedy) for p in parts()]
    for line in align_columns(rows):
        write_line(line)


@app.command("demo-model")
def demo_model() -> None:
    """Download and convert the demo model (4-bit, instruct), and print its directory."""
    from drillcore.backends.demo_model import ensure_demo_model

    write_line(str(ensure_demo_model()))


@app.command()
def schema(what: Annotated[str, typer.Argument(metavar="job", help="Which schema.")] = "job") -> None:
    """Print the JSON Schema of job files."""
    from drillcore.errors import JobError
    from drillcore.job.schema import job_schema

    if what != "job":
        raise JobError(f"there is no schema {what}", hint="drillcore schema job")
    write_line(job_schema().removesuffix("\n"))
