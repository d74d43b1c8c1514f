"""`drillcore verify`: reads every byte of a store and names what is damaged; the next run repairs exactly that.

The store itself is only read. What the next run must compute again is written beside it, to `damage.json`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import zarr

from drillcore.errors import CommitError, DamageError
from drillcore.runtime.recompute import RecordedJob, recompute_rows, recorded_job
from drillcore.runtime.recorded_models import MODEL, check_models
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.checks.groups import check_group, check_metadata, group_paths
from drillcore.store.places.location import Location, make_folder
from drillcore.store.reader import open_root
from drillcore.system.files import write_atomic
from drillcore.texts.rows import row_ids

SHOWN = 100


def verify_lines(
    address: str, out: Path | None = None, recompute: int | None = None, *, models: bool = False
) -> Iterator[str]:
    """Verify a store; yields lines that name what is damaged, and writes the note for the next run.

    out: folder of the note, by default beside the store. recompute: compute so many sentences of each group again,
    alone and by plain `transformers`, and the canaries of each model. models: read the files of the models again and
    compare them with what the store records. Raises DamageError at the end where something is damaged, StoreError where
    there is no store, CommitError where the note cannot be written.
    """
    location = Location(address)
    root = open_root(location)
    recorded = recorded_job(location.beside(out)) if models or recompute is not None else None
    findings: list[Finding] = []
    yield from _lines(findings, check_metadata(root.store), "metadata")
    for path in group_paths(root.store):
        yield from _lines(findings, check_group(root.store, path, row_ids), path)
    if recorded is not None and recompute is not None:
        yield from _recompute(findings, root, recorded, recompute)
    if recorded is not None and models:
        yield from _all(findings, check_models(root, recorded))
    note = (out or location.bookkeeping) / NOTE
    if not findings:
        note.unlink(missing_ok=True)
        yield f"store {address}: whole"
        return
    make_folder(note.parent)
    try:
        write_atomic(note, json.dumps([f.as_note() for f in findings if f.mend], indent=1).encode())
    except OSError as error:
        raise CommitError(f"{note} could not be written: {error.strerror}", hint="Name a folder with --out.") from None
    hint = "`drillcore run JOB` computes exactly these again."
    if any(f.array == MODEL for f in findings):
        hint = "First do what is said of the models; `drillcore run JOB` computes what else was found again."
    raise DamageError(f"store {address}: {len(findings)} findings", hint=hint)


def _recompute(findings: list[Finding], root: zarr.Group, recorded: RecordedJob, count: int) -> Iterator[str]:
    """Append what does not belong to its text, and yield a line for each group and finding."""
    seed = secrets.randbits(32)
    yield f"computing sentences again, seed {seed}"
    yield from _all(findings, recompute_rows(root, recorded, count, seed))


def _all(findings: list[Finding], results: Iterator[Finding | str]) -> Iterator[str]:
    """Append the findings among some results, and yield a line for each result."""
    for result in results:
        if isinstance(result, Finding):
            findings.append(result)
        yield str(result)


def _lines(findings: list[Finding], new: Iterator[Finding], what: str) -> Iterator[str]:
    """Append the new findings, and yield a line for each of the first hundred."""
    count = 0
    for count, finding in enumerate(new, 1):
        findings.append(finding)
        if count <= SHOWN:
            yield str(finding)
    if count > SHOWN:
        yield f"{what}: ... and {count - SHOWN:,} more"
    if not count:
        yield f"{what}: whole"
