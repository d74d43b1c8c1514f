"""`drillcore verify`: reads every byte of a store and names what is damaged; the next run repairs exactly that.

The store itself is only read. What the next run must compute again is written beside it, to `damage.json`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import zarr

from drillcore.errors import CommitError, DamageError, StoreError
from drillcore.runtime.recompute import RecordedJob, recompute_rows, recorded_job
from drillcore.runtime.recorded_models import MODEL, check_models
from drillcore.runtime.repair import is_note_of, note_of
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.checks.store import StoreChecks
from drillcore.store.places.location import Location, make_folder
from drillcore.store.reader import open_root
from drillcore.system.bounds import problem_with_folder, problem_with_output
from drillcore.system.files import write_atomic

SHOWN = 100


def verify_lines(
    address: str, out: Path | None = None, recompute: int | None = None, *, models: bool = False
) -> Iterator[str]:
    """Verify a store; yields lines that name what is damaged, and writes the note for the next run.

    out: another folder for the note, which is written beside the store too. recompute: compute so many sentences of
    each group again, alone and by plain `transformers`, and the canaries of each model. models: read the files of the
    models again and compare them with what the store records. Raises DamageError at the end where something is damaged,
    StoreError where there is no store, CommitError where the note cannot be written.
    """
    location = Location(address)
    # Beside the store in any case: that is where a run looks, whatever its --out.
    notes = [folder / NOTE for folder in dict.fromkeys([location.bookkeeping, out or location.bookkeeping])]
    for note in notes:
        if problem := problem_with_folder(note.parent):
            raise StoreError(f"{note.parent} cannot be a folder: it {problem}", hint="Name another --out.")
        if problem := problem_with_output(note):
            raise StoreError(
                f"{note}, which verification writes, {problem}", hint="Move it away, or name another --out."
            )
        if not is_note_of(note, location.identity):
            raise StoreError(
                f"{note} is about another store: it says what a run must make again there",
                hint="Run the job of that store first, or name another --out.",
            )
    root = open_root(location, checked=False)
    checks = StoreChecks(root)
    recorded = recorded_job(location.beside(out)) if models or recompute is not None else None
    findings: list[Finding] = []
    if checks.is_old:
        yield (
            "written before data digests: files are compared with their checksums only, so that one put in the place "
            "of another may pass; the next run records digests and computes nothing again that is whole"
        )
    if not checks.is_finished:
        yield "the last run did not finish: what it has not written yet does not count as missing"
    yield from _lines(findings, checks.metadata(), "metadata")
    for path in checks.paths:
        yield from _lines(findings, checks.group(path), path)
    if recorded is not None and recompute is not None:
        yield from _recompute(findings, root, recorded, recompute)
    if recorded is not None and models:
        yield from _all(findings, check_models(root, recorded))
    if not findings:
        for note in notes:
            note.unlink(missing_ok=True)
        yield f"store {address}: whole"
        return
    for note in notes:
        make_folder(note.parent)
        try:
            write_atomic(note, note_of(location.identity, findings, root.store))
        except OSError as error:
            what = f"{note} could not be written: {error.strerror}"
            raise CommitError(what, hint="Name a folder with --out.") from None
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
