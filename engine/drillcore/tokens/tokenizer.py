"""From sentences to token ids: special tokens, templates, truncation; computed once per distinct tokenizer.

Token ids of a whole dataset lie in two .npy files in the cache and are memory-mapped.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.errors import JobError, ModelError, TextError
from drillcore.system.files import cache_dir, digest
from drillcore.texts.rows import RowTable
from drillcore.tokens.sequences import Sequences

BATCH = 4096
# Characters of a sentence. More are too many tokens for any model, and tokenizing takes hundreds of bytes for each.
LONGEST = 4_000_000


@dataclass(frozen=True)
class TokenPolicy:
    """How text becomes tokens; part of the fingerprint.

    tokenizer: digest of the tokenizer itself. template: text around each sentence, `chat`, or None.
    """

    tokenizer: str
    special_tokens: str
    template: str | None


class Tokenizer:
    """A model's tokenizer under a job's policy."""

    def __init__(self, location: str, special_tokens: str, **arguments: Any) -> None:
        from transformers import AutoTokenizer

        from drillcore.system.quiet import quiet_transformers

        try:
            with quiet_transformers():
                self._tokenizer = AutoTokenizer.from_pretrained(location, **arguments)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"the tokenizer of {location} could not be read: {str(error).splitlines()[0]}",
                hint="A model directory needs its tokenizer files beside the weights.",
            ) from error
        self._special = special_tokens != "none"
        self.digest = self._digest()

    def _digest(self) -> str:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        body = backend.to_str() if backend is not None else sorted(self._tokenizer.get_vocab().items())
        # The wrapper around the backend decides tokens too.
        around = [str(self._tokenizer.chat_template), type(self._tokenizer).__name__]
        return digest([body, around])

    def policy(self, template: str | None) -> TokenPolicy:
        """The policy for a dataset with this template."""
        return TokenPolicy(self.digest, "auto" if self._special else "none", template)

    def encode(self, texts: list[str], template: str | None) -> list[list[int]]:
        """Token ids of each text within the template; raises JobError for `chat` where the tokenizer has none."""
        special = self._special
        if template == "chat":
            texts = [self._chat(text) for text in texts]
            special = False  # the chat template writes them itself
        elif template is not None:
            before, after = template.split("{text}")
            texts = [before + text + after for text in texts]
        encoded: list[list[int]] = self._tokenizer(
            texts,
            add_special_tokens=special,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return encoded

    def first_token(self, text: str) -> int:
        """First token of a continuation."""
        return self.continuation(text)[0]

    def continuation(self, text: str) -> list[int]:
        """Token ids of a continuation such as " Toronto", without special tokens."""
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _chat(self, text: str) -> str:
        if not self._tokenizer.chat_template:
            raise JobError(
                "template: chat, but this tokenizer has no chat template",
                hint="Write the template as text that holds {text}.",
            )
        messages = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def tokenize(rows: RowTable, tokenizer: Tokenizer, template: str | None) -> Sequences:
    """Token ids of all rows, taken from the cache or computed and written there; memory-mapped.

    Raises TextError where a sentence is too long for any model, JobError where the template cannot be used.
    """
    policy = tokenizer.policy(template)
    folder = cache_dir() / "tokens" / digest([rows.digest, policy.tokenizer, policy.special_tokens, template])
    if not (folder / "ids.npy").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
        try:
            _write(scratch, rows, tokenizer, template)
            _move(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return load_tokens(folder)


def load_tokens(folder: Path) -> Sequences:
    """Open memory-mapped token ids."""
    return Sequences(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "offsets.npy", mmap_mode="r"))


def _move(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        # Another process was faster; its result is the same.
        if not (folder / "ids.npy").exists():
            raise


def _encoded(rows: RowTable, tokenizer: Tokenizer, template: str | None) -> Iterator[list[int]]:
    for start in range(0, rows.num_rows, BATCH):
        texts = rows.texts(start, min(start + BATCH, rows.num_rows))
        for i, text in enumerate(texts, start):
            if len(text) > LONGEST:
                problem = f"sentence {i} has {len(text):,} characters, too many for any model"
                raise TextError(problem, hint="Split it or leave it out.")
        yield from tokenizer.encode(texts, template)


def _write(folder: Path, rows: RowTable, tokenizer: Tokenizer, template: str | None) -> None:
    offsets = np.zeros(rows.num_rows + 1, dtype=np.int64)
    raw = folder / "ids.raw"
    with raw.open("wb") as stream:
        for i, ids in enumerate(_encoded(rows, tokenizer, template)):
            offsets[i + 1] = offsets[i] + len(ids)
            stream.write(np.asarray(ids, dtype=np.int32).tobytes())
        stream.flush()
        os.fsync(stream.fileno())
    np.save(folder / "offsets.npy", offsets)
    # An .npy file is a header and the raw bytes: write it without holding them.
    ids_T = np.memmap(raw, np.int32, "r", shape=(int(offsets[-1]),)) if offsets[-1] else np.zeros(0, np.int32)
    np.save(folder / "ids.npy", ids_T)
    raw.unlink()
