"""Reads every byte of a store and names what is damaged; the next run repairs exactly that.

The store itself is only read. What the next run must compute again is written beside it, to `damage.json`.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import zarr

from drillcore.api.page import table
from drillcore.api.progress import listener
from drillcore.api.stores import AnyStore, address_of
from drillcore.errors import CommitError, DamageError, StoreError
from drillcore.runtime.recompute import RecordedJob, recompute_rows, recorded_job
from drillcore.runtime.recorded_models import MODEL, check_models
from drillcore.runtime.repair import is_note_of, note_of
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.checks.store import StoreChecks
from drillcore.store.places.location import Location, make_folder
from drillcore.store.reader import open_root
from drillcore.system.bounds import problem_with_folder, problem_with_output
from drillcore.system.files import without_nan, write_atomic
from drillcore.system.progress import ProgressListener, telling

# Findings that a notebook shows.
SHOWN = 100


@dataclass(frozen=True)
class Verified:
    """What the checks of a store found. findings: empty where it is whole. said: what else a reader must know.

    note: the file that tells the next run what to make again; None where the store is whole.
    """

    store: str
    findings: tuple[Finding, ...]
    said: tuple[str, ...] = ()
    note: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.findings

    @property
    def remedy(self) -> str:
        """What to do; empty where the store is whole."""
        if any(finding.array == MODEL for finding in self.findings):
            return "First do what is said of the models; `drillcore run JOB` computes what else was found again."
        return "" if self.whole else "`drillcore run JOB` computes exactly these again."

    def check(self) -> None:
        """Raise DamageError where something is damaged."""
        if self.findings:
            raise DamageError(f"store {self.store}: {len(self.findings)} findings", hint=self.remedy)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        facts = {
            "store": self.store,
            "whole": self.whole,
            "findings": [finding.as_note() for finding in self.findings],
            "said": self.said,
            "remedy": self.remedy,
            "note": None if self.note is None else str(self.note),
        }
        return dict(without_nan(facts))

    def __repr__(self) -> str:
        if self.whole:
            return f"store {self.store}: whole"
        lines = [f"store {self.store}: {len(self.findings)} findings", *map(str, self.findings[:SHOWN])]
        return "\n".join([*lines, *(["..."] if len(self.findings) > SHOWN else []), self.remedy])

    def _repr_html_(self) -> str:
        title = f"store {self.store}: " + ("whole" if self.whole else f"{len(self.findings)} findings")
        rows = [(f.group or "store", f.array, f.shard if f.shard is not None else "", f.what) for f in self.findings]
        header = ("group", "array", "shard", "what") if rows else ()
        return table(title, header, rows[:SHOWN], [*self.said, *([self.remedy] if rows else [])])


@dataclass(frozen=True)
class Found:
    """One finding, of a part of the store that is checked; part is empty for what is computed again or read again."""

    part: str
    finding: Finding


@dataclass(frozen=True)
class Checked:
    """The end of the checks of a part of the store, and how much they found."""

    part: str
    num_findings: int


def verify(
    store: AnyStore,
    *,
    out: str | PathLike[str] | None = None,
    recompute: int | None = None,
    models: bool = False,
    progress: bool | ProgressListener | None = None,
) -> Verified:
    """Check checksums, fingerprints and values of a store; damage is in the result, and not raised.

    out: another folder for the note, which is written beside the store too. recompute: compute so many sentences of
    each group again, alone and by plain `transformers`, and the canaries of each model. models: read the files of the
    models again and compare them with what the store records. progress: as for `drillcore.run`. Raises StoreError where
    there is no store, CommitError where the note cannot be written.

    >>> verified = drillcore.verify("runs/job.zarr")
    >>> verified.whole, verified.findings
    (True, ())
    """
    heard = listener(progress)
    steps = check(address_of(store), None if out is None else Path(out), recompute, models=models)
    # Without progress, who listens already goes on listening.
    with telling(heard.say) if progress else nullcontext():
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found: Verified = end.value
                return found
            if isinstance(step, Checked):
                heard.say(
                    f"{step.part}: {step.num_findings:,} findings" if step.num_findings else f"{step.part}: whole"
                )
            else:
                heard.say(str(step.finding) if isinstance(step, Found) else step)


def check(
    address: str, out: Path | None, recompute: int | None, *, models: bool
) -> Generator[str | Found | Checked, None, Verified]:
    """Check a store, step by step, and write or remove the note for the next run; the arguments are those of `verify`.

    Yields words for people, findings as they are made, and the end of each part; returns what `verify` does.
    """
    location = Location(address)
    # Beside the store in any case: that is where a run looks, whatever its --out.
    notes = [folder / NOTE for folder in dict.fromkeys([location.bookkeeping, out or location.bookkeeping])]
    for note in notes:
        _check_note(note, location)
    root = open_root(location, checked=False)
    checks = StoreChecks(root)
    recorded = recorded_job(location.beside(out)) if models or recompute is not None else None
    findings: list[Finding] = []
    said = list(_said(checks))
    yield from said
    yield from _checked(findings, checks.metadata(), "metadata")
    for path in checks.paths:
        yield from _checked(findings, checks.group(path), path)
    for result in _again(root, recorded, recompute, models):
        if isinstance(result, Finding):
            findings.append(result)
        else:
            said.append(result)
        yield Found("", result) if isinstance(result, Finding) else result
    if findings:
        for note in notes:
            _write(note, note_of(location.identity, findings, root.store))
    else:
        for note in notes:
            note.unlink(missing_ok=True)
    return Verified(address, tuple(findings), tuple(said), notes[-1] if findings else None)


def _check_note(note: Path, location: Location) -> None:
    """Raise StoreError where a note cannot be written, or is about another store."""
    if problem := problem_with_folder(note.parent):
        raise StoreError(f"{note.parent} cannot be a folder: it {problem}", hint="Name another --out.")
    if problem := problem_with_output(note):
        raise StoreError(f"{note}, which verification writes, {problem}", hint="Move it away, or name another --out.")
    if not is_note_of(note, location.identity):
        raise StoreError(
            f"{note} is about another store: it says what a run must make again there",
            hint="Run the job of that store first, or name another --out.",
        )


def _said(checks: StoreChecks) -> Iterator[str]:
    if checks.is_old:
        yield (
            "written before data digests: files are compared with their checksums only, so that one put in the place "
            "of another may pass; the next run records digests and computes nothing again that is whole"
        )
    if not checks.is_finished:
        yield "the last run did not finish: what it has not written yet does not count as missing"


def _checked(findings: list[Finding], new: Iterator[Finding], part: str) -> Iterator[Found | Checked]:
    """Append the findings of a part, and yield each, and the end."""
    before = len(findings)
    for finding in new:
        findings.append(finding)
        yield Found(part, finding)
    yield Checked(part, len(findings) - before)


def _again(
    root: zarr.Group, recorded: RecordedJob | None, recompute: int | None, models: bool
) -> Iterator[Finding | str]:
    """What does not belong to its text, or is no longer what the store records, and words for people."""
    if recorded is not None and recompute is not None:
        seed = secrets.randbits(32)
        yield f"computing sentences again, seed {seed}"
        yield from recompute_rows(root, recorded, recompute, seed)
    if recorded is not None and models:
        yield from check_models(root, recorded)


def _write(note: Path, data: bytes) -> None:
    make_folder(note.parent)
    try:
        write_atomic(note, data)
    except OSError as error:
        raise CommitError(f"{note} could not be written: {error.strerror}", hint="Name a folder with --out.") from None
