"""Commands that read a store, or change which groups it has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drillcore.cli.arguments import Json, Out, StoreName
from drillcore.cli.tables import say_aside, write_json, write_line
from drillcore.system.progress import telling


def show(store: StoreName, json: Json = False) -> None:
    """Show what a store holds and how complete it is."""
    from drillcore.api.show import show
    from drillcore.cli.show import lines_of

    shown = show(store)
    if json:
        write_json(shown.to_dict())
        return
    for line in lines_of(shown):
        write_line(line)


def export(
    store: StoreName,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="parquet, npy, anndata, embedding-atlas or probe.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer", metavar="K", help="Number or name of the layer; -1 is the last; `all` of probes alone."
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="MODEL/DATASET", help="One of several groups.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="FIELD", help="One of several labels, whose probe is written.")
    ] = None,
) -> None:
    """Write one layer with its sentences as a file for notebooks and other viewers."""
    from drillcore.cli.export import export_layer

    for line in export_layer(store, layer, to, out, group, label):
        write_line(line)


def compare(
    store: StoreName,
    a: Annotated[str, typer.Argument(metavar="A", help="A group: MODEL/DATASET.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    metric: Annotated[list[str] | None, typer.Option(help="Measures; by default all that both groups have.")] = None,
    label: Annotated[str | None, typer.Option(metavar="FIELD", help="One of several labels, of both groups.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the rows to this CSV file.")] = None,
    json: Json = False,
) -> None:
    """Compare two groups layer by layer: which is tighter or separates better, and by how much."""
    from drillcore.cli.compare import comparison, lines_of

    compared = comparison(store, a, b, metric or (), csv, label)
    if json:
        write_json(compared.to_dict())
        return
    for line in lines_of(compared):
        write_line(line)


def push(
    store: StoreName,
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="hf://datasets/ORG/NAME, with a path where needed.")],
    public: Annotated[bool, typer.Option("--public", help="Create the data set for all to see.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card and the size; upload nothing.")] = False,
    json: Json = False,
) -> None:
    """Put a finished store into a data set of the Hugging Face hub, with a card; private unless told otherwise."""
    from contextlib import closing

    from drillcore.api.push import push
    from drillcore.cli.display import make_display

    with closing(make_display()) as display:
        pushed = push(store, to, public=public, dry_run=dry_run, progress=display)
    if json:
        write_json(pushed.to_dict())
        return
    for line in pushed.lines():
        write_line(line)


def rm(
    store: StoreName,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="MODEL/DATASET, or MODEL for all its datasets.")],
) -> None:
    """Remove a group from a store, such as that of a dataset that left the job."""
    from drillcore.api.changing import remove

    with telling(say_aside):
        removed = remove(store, group)
    for line in removed.lines():
        write_line(line)


def mv(
    store: StoreName,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="MODEL/DATASET, or MODEL for the model itself.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name: of the dataset, or of the model.")],
) -> None:
    """Rename a dataset, with its positions and branches, or a model of a store; nothing is computed."""
    from drillcore.api.changing import move

    with telling(say_aside):
        moved = move(store, group, name)
    for line in moved.lines():
        write_line(line)


def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="Two finished stores, or more.")],
    into: Annotated[str, typer.Option("--into", metavar="NEW", help="The store to make of them.")],
    job: Annotated[
        str | None, typer.Option("--job", metavar="NAME", help="The job it belongs to; by default NEW without .zarr.")
    ] = None,
) -> None:
    """Make one store of several whose models or datasets are others; nothing is computed, and they stay as they are."""
    from contextlib import closing

    from drillcore.api.merge import merge
    from drillcore.cli.display import make_display

    with closing(make_display()) as display, telling(say_aside):
        merged = merge(stores, into, job=job, progress=display)
    for line in merged.lines():
        write_line(line)


def verify(
    store: StoreName,
    out: Out = None,
    recompute: Annotated[
        int | None, typer.Option("--recompute", metavar="N", min=0, help="Compute N sentences of each group again.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Read the models' files again: are they those the store records?")
    ] = False,
    json: Json = False,
) -> None:
    """Check checksums, fingerprints and values of a store; exit status 1 if anything is damaged."""
    from drillcore.api.verify import verify
    from drillcore.cli.verify import verify_lines

    if json:
        verified = verify(store, out=out, recompute=recompute, models=models)
        write_json(verified.to_dict())
        verified.check()
        return

    for line in verify_lines(store, out, recompute, models=models):
        write_line(line)
