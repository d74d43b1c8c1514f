"""What decides the token ids that a tokenizer gives: its files, state, settings, code, and versions of libraries."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any

from drillcore.system.cached import remembered_digest
from drillcore.system.files import digest
from drillcore.system.versions import installed_versions, versions

# Increase this whenever the same tokenizer and text would give other ids because this package asks in another way.
VERSION = 1
# Tokenizers may use these; a version of one that is installed is part of the digest.
PACKAGES = (
    *("transformers", "tokenizers", "sentencepiece", "tiktoken", "mistral-common", "jinja2", "regex", "ftfy", "spacy"),
    *("sacremoses", "jieba", "rjieba", "pythainlp", "fugashi", "ipadic", "unidic", "unidic-lite", "sudachipy"),
    *("rhoknp", "emoji", "nltk", "phonemizer", "protobuf"),
)
# Files of a model's folder that no tokenizer reads; every other one counts. What a tokenizer takes from config.json,
# its class, is part of its state.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".ckpt", ".npz", ".ot")
PAPERS = (".md", ".png", ".jpg", ".jpeg", ".gif", ".pdf", ".partial", ".lock")
OTHERS = ("config.json", "generation_config.json", "drillcore.json", "trainer_state.json", "LICENSE")
# Attributes that decide no id. `cache` fills while a slow tokenizer works.
SKIPPED = ("name_or_path", "model_max_length", "verbose", "deprecation_warnings", "cache", "files_loaded")
PROBES = (
    *("a", " a", "a ", " ", "\n\n", "Hello, world! It's 12:34 o'clock; don't panic.", "<s></s><unk><pad>"),
    *("<|endoftext|><|im_end|>", "naïve Zürich İstanbul", "日本語 한국어 русский", "1234567 3.14"),
    *("🙂 \t \u200b", "[MASK] [SEP]"),
)


def tokenizer_digest(tokenizer: Any, location: str, revision: str | None) -> str:
    """SHA-256 of all that decides an id, chat templates aside: what one writes is known when it is rendered.

    tokenizer: of `transformers`. location, revision: where it was read from.

    Take it before the first sentence is encoded: slow tokenizers remember words.
    """
    kind, folder = type(tokenizer), folder_of(location, revision)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    code = getattr(sys.modules.get(kind.__module__), "__file__", None)
    of_transformers = kind.__module__.split(".")[0] == "transformers"
    about = {
        "version": VERSION,
        "class": f"{kind.__module__.split('.')[-1]}.{kind.__qualname__}",
        "code": remembered_digest(Path(code)) if code and not of_transformers else None,
        "state": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        "settings": _plain(vars(tokenizer), str(folder or location)),
        "files": _files(folder),
        "versions": {"python": versions()["python"], **installed_versions(PACKAGES)},
        "unicode": unicodedata.unidata_version,
    }
    probed = [tokenizer(list(PROBES), add_special_tokens=special)["input_ids"] for special in (True, False)]
    return digest([about, probed])


def folder_of(location: str, revision: str | None) -> Path | None:
    """Where the files are; None for a hub model that is not in the cache as a folder."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(location, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _files(folder: Path | None) -> dict[str, str]:
    """Digest of each file that a tokenizer may read."""
    if folder is None:
        return {}
    found = [*folder.iterdir(), *(folder / "additional_chat_templates").glob("*")]
    return {str(path.relative_to(folder)): remembered_digest(path) for path in sorted(found) if _counts(path)}


def _counts(path: Path) -> bool:
    name = path.name.lower()
    of_others = name.endswith((*WEIGHTS, *PAPERS, ".index.json")) or path.name in OTHERS or name.startswith(".")
    return path.is_file() and not of_others


def _plain(value: Any, folder: str) -> Any:
    """A setting as JSON; the folder's own name is left out, so that copies of one tokenizer are the same."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return str(value).replace(folder, "")
    if isinstance(value, dict):
        kept = [[str(k), _plain(v, folder)] for k, v in value.items() if k not in SKIPPED]
        return sorted(kept, key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return [_plain(v, folder) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    shown = repr(value)
    # The text of an object without one of its own holds its address.
    return type(value).__qualname__ if " at 0x" in shown or len(shown) > 10_000 else shown
