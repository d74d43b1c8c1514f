"""What the last audit of a group found, as the group's attributes keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import zarr

from drillcore.store.attributes import attributes_of, put_attributes
from drillcore.system.files import digest

ATTRIBUTE = "audit"


@dataclass(frozen=True)
class AuditRecord:
    """An audit that found nothing wrong, or, where `of` is empty, one that is still to be made.

    of: digest of the fingerprints of all shards then. sentences: that were compared. worst_relative_error: ‖a − b‖₂ /
    ‖b‖₂ of the sentence and layer nearest to its bound, or beyond; bound: the largest that passes there. dtype: that
    the sentences were computed in.
    """

    of: str = ""
    sentences: int = 0
    worst_relative_error: float = 0.0
    bound: float = 0.0
    dtype: str = ""

    def is_of(self, fingerprints: Sequence[str]) -> bool:
        """Whether it was made of the states that have these fingerprints."""
        return self.of == states_digest(fingerprints)


NOT_YET = AuditRecord()


def states_digest(fingerprints: Sequence[str]) -> str:
    """A digest of the fingerprints of all shards of a group."""
    return digest(list(fingerprints))


def read_audit(group: zarr.Group) -> AuditRecord | None:
    """The record of a group; None where it was never to be audited, or the record cannot be read."""
    return audit_of(attributes_of(group))


def audit_of(attributes: Mapping[str, Any]) -> AuditRecord | None:
    """The record among a group's attributes; see `read_audit`."""
    record: Any = attributes.get(ATTRIBUTE)
    try:
        return None if record is None else AuditRecord(**record)
    except TypeError:
        return None


def write_audit(group: zarr.Group, record: AuditRecord | None) -> None:
    """Set or remove the record of a group, unless nothing changes; raises CommitError."""
    attributes = attributes_of(group)
    attributes.pop(ATTRIBUTE, None)
    after = {} if record is None else {ATTRIBUTE: asdict(record)}
    put_attributes(group.store, group.path, {**attributes, **after})
