"""Verification: reads every byte of a store and names what is damaged; the next run mends exactly that.

The store itself is only read. What a run has to give up is noted beside it, in `damage.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from drillcore.errors import CommitError, DamageError
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.checks.groups import check_group, check_metadata, group_paths
from drillcore.store.places.location import Location, make_folder
from drillcore.store.reader import open_root
from drillcore.system.files import write_atomic
from drillcore.texts.rows import row_ids

SHOWN = 100


def report(address: str, out: Path | None = None) -> Iterator[str]:
    """Lines that say what is damaged, and a note for the next run; raises DamageError at the end where anything is."""
    location = Location(address)
    root, found = open_root(location), list[Finding]()
    yield from _lines(found, check_metadata(root.store), "metadata")
    for path in group_paths(root.store):
        yield from _lines(found, check_group(root.store, path, row_ids), path)
    note = location.beside(out) / NOTE
    if not found:
        note.unlink(missing_ok=True)
        yield f"store {address}: whole"
        return
    make_folder(note.parent)
    try:
        write_atomic(note, json.dumps([f.as_note() for f in found if f.mend], indent=1).encode())
    except OSError as error:
        raise CommitError(f"{note} could not be written: {error.strerror}", hint="Name a folder with --out.") from None
    raise DamageError(
        f"store {address}: {len(found)} findings", hint="`drillcore run JOB` computes exactly these again."
    )


def _lines(found: list[Finding], findings: Iterator[Finding], what: str) -> Iterator[str]:
    before = len(found)
    for finding in findings:
        found.append(finding)
        if len(found) - before <= SHOWN:
            yield str(finding)
    count = len(found) - before
    if count > SHOWN:
        yield f"{what}: ... and {count - SHOWN:,} more"
    if not count:
        yield f"{what}: whole"
