"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file.")]
StoreName = Annotated[str, typer.Argument(metavar="STORE", help="Path, or s3:// or hf:// address, of a store.")]
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
Out = Annotated[Path | None, typer.Option("--out", help="Folder for manifest, log and pictures.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors, warnings and the last line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say details too: paths, settings, seconds.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of lines.")]
