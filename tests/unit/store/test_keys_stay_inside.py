"""No key leads out of a store's folder: what reads, writes and removes files refuses such a one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drillcore.store.places import files
from drillcore.store.places.local import DurableStore

Step = Callable[[DurableStore, str], object]
STEPS: dict[str, Step] = {
    "write": lambda store, key: files.write_file(store, key, b"1"),
    "read": files.read_file,
    "list": files.list_files,
    "remove": files.remove_file,
    "remove a folder": files.remove_folder,
    "move": lambda store, key: files.move_folder(store, "m", key),
    "move from": lambda store, key: files.move_folder(store, key, "n"),
    "read a range": lambda store, key: files.read_range(store, key, 0, 1),
    "read the end": lambda store, key: files.read_end(store, key, 1),
    "read ahead": lambda store, key: files.read_ahead(store, key, 0, 1),
}


@pytest.mark.parametrize("form", ["absolute", "above", "above in between"])
@pytest.mark.parametrize("step", STEPS)
def test_a_key_that_leads_out_is_refused(step: str, form: str, tmp_path: Path) -> None:
    store = DurableStore(tmp_path / "s.zarr")
    files.write_file(store, "zarr.json", b"{}")
    files.write_file(store, "m/zarr.json", b"{}")
    outside = tmp_path / "other"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    key = {"absolute": str(outside), "above": "../other", "above in between": "m/../../other"}[form]
    whole_folder = step in ("list", "remove a folder", "move", "move from")
    with pytest.raises(ValueError, match="leads out of the store"):
        STEPS[step](store, key if whole_folder else f"{key}/kept")
    assert (outside / "kept").read_bytes() == b"kept"
    assert {path.name for path in tmp_path.iterdir()} == {"other", "s.zarr"}
