"""`drillcore export`: what was written, as lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drillcore.api.export import export


def export_layer(
    address: str, layer: str | None, kind: str, path: Path, group: str | None = None, label: str | None = None
) -> Iterator[str]:
    """Write a layer to `path` in the format `kind`; yields what was written. Raises what `export` does."""
    written = export(address, layer=layer, to=kind, out=path, group=group, label=label)
    yield repr(written)
    if written.advice:
        yield written.advice
