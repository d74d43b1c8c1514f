"""Commands about this machine and this package: no job, no store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drillcore.cli.arguments import Json
from drillcore.cli.tables import write_json, write_line


def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Hub ids or directories.")],
    out: Annotated[Path, typer.Option("--out", help="JSON file of results; a second call continues it.")],
    texts: Annotated[Path | None, typer.Option(help="A file of sentences.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Random sentences instead, e.g. uniform:8-64.")] = None,
    sentences: Annotated[int | None, typer.Option(min=1, max=10**7, help="Maximum number of sentences.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Backends to compare; `streamed` too.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Dtypes to compare.")] = None,
    batch_tokens: Annotated[list[int] | None, typer.Option(min=1, max=2**22, help="Token budgets to compare.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Random weights: read configurations only.")] = False,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Rounds; the cases take turns.")] = 3,
    json: Json = False,
) -> None:
    """Measure the throughput of models, backends, dtypes and token budgets on this machine."""
    import sys
    from dataclasses import asdict
    from functools import partial

    from drillcore.cli.bench.run import BenchSettings, make_cases, run_bench, table_of
    from drillcore.system.columns import align_columns

    cases = make_cases(models, backend or ["transformers"], dtype or ["auto"], batch_tokens or ["auto"], random_weights)
    settings = BenchSettings(texts=texts, lengths=lengths, num_sentences=sentences, repeats=repeats)
    rows = run_bench(cases, settings, out, partial(write_line, file=sys.stderr) if json else write_line)
    if json:
        write_json({"out": str(out), "rows": [asdict(row) for row in rows]})
        return
    header, cells = table_of(rows)
    for line in align_columns([header, *cells]):
        write_line(line)


def doctor(json: Json = False) -> None:
    """List what this machine can run, and how to install the rest."""
    from drillcore.api.doctor import doctor
    from drillcore.system.columns import align_columns

    parts = doctor()
    if json:
        write_json(parts.to_dict())
        return
    rows = [(p.name, "yes" if p.present else "no", p.detail if p.present else p.remedy) for p in parts]
    for line in align_columns(rows):
        write_line(line)


def demo_model() -> None:
    """Download and convert the demo model (4-bit, instruct), and print its directory."""
    from drillcore.backends.demo_model import ensure_demo_model

    write_line(str(ensure_demo_model()))


def schema(
    what: Annotated[str, typer.Argument(metavar="job", help="Which schema.")] = "job",
    write: Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Write it to a file.")] = None,
) -> None:
    """Print the JSON Schema of job files, or write it beside them for an editor."""
    import json

    from drillcore.errors import JobError
    from drillcore.job.schema import job_schema
    from drillcore.system.bounds import problem_with_output, read_object
    from drillcore.system.files import write_atomic

    if what != "job":
        raise JobError(f"there is no schema {what}", hint="drillcore schema job")
    text = job_schema()
    if write is None:
        write_line(text.removesuffix("\n"))
        return
    problem = problem_with_output(write)
    if not problem and write.exists() and read_object(write).get("title") != json.loads(text)["title"]:
        problem = "is there already and is no schema of drillcore"
    if problem:
        raise JobError(f"{write} {problem}", hint="Name another file: drillcore schema job --write job.schema.json")
    try:
        write_atomic(write, text.encode())
    except OSError as error:
        raise JobError(f"{write} cannot be written: {error.strerror}", hint="Name another file.") from None
    write_line(f"wrote {write}; an editor completes the fields of a job file beside it that begins with this line:")
    write_line(f"# yaml-language-server: $schema={write.name}")
