"""What is removed from a store that is a folder stays removed, and may be of any kind."""

from __future__ import annotations

import pytest

from drillcore.store.places import local
from drillcore.store.places.files import remove_file, remove_folder
from drillcore.store.places.local import DurableStore


@pytest.fixture
def store(tmp_path):
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    return DurableStore(tmp_path)


@pytest.mark.parametrize("remove", [remove_file, remove_folder])
@pytest.mark.parametrize("key", ["a", "a/b", "a/d", "e", "link"])
def test_the_folder_around_it_is_flushed_after_it_is_gone(store, key, remove, monkeypatch):
    flushed = []
    monkeypatch.setattr(local, "flush", lambda path: flushed.append((path, (store.root / key).exists())))
    remove(store, key)
    assert flushed == [((store.root / key).parent, False)]
    assert (store.root / "a" / "b" / "c").exists() == (key not in ("a", "a/b"))


@pytest.mark.parametrize("remove", [remove_file, remove_folder])
@pytest.mark.parametrize("key", ["x", "x/y", "e/x"])
def test_nothing_is_there(store, key, remove):
    remove(store, key)
    assert (store.root / "e").exists()


def test_two_threads_make_the_same_folder(store, monkeypatch):
    """Between looking and removing what is no folder, another thread has made one there."""
    looked = type(store.root).is_dir

    def looks_and_loses(path, **rest):
        found = looked(path, **rest)
        if path == store.root / "new":
            path.mkdir(exist_ok=True)
        return found

    monkeypatch.setattr(type(store.root), "is_dir", looks_and_loses)
    store.put("zarr.json", [b"{}"])
    store.put("new/zarr.json", [b"x"])
    assert (store.root / "new" / "zarr.json").read_bytes() == b"x"
