"""Tokenizers of every kind that models bring, trained on a few sentences; `write` puts one beside a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CITIES = ("Toronto", "Montreal", "Ottawa", "Halifax")
CORPUS = [
    f"{begun} {city}{end}"
    for begun in ("The largest city of Ontario is", "She moved to", "the old port of", "A river runs near")
    for city in CITIES
    for end in (".", " and stayed", "onian winters", "'s mayor", " now")
]
SIZE = 380
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
# Metaspace and prepended write a space before each text: " Toronto" alone becomes two tokens.
FAST = ("bytes", "prefixed", "metaspace", "prepended", "wordpiece", "unigram", "appends")
# As FAST, for what offsets they tell: trimmed of spaces, of composed characters, of compatibility forms.
OFFSETS = ("trimmed", "composed", "compatible")
SLOW = ("ctrl", "byt5")


def write(folder: Path, kind: str, **settings: Any) -> Path:
    """Write the files of a tokenizer of one kind into a folder; settings go into tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind in SLOW:
        _write_slow(folder, kind, settings)
        return folder
    _fast(kind).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    unknown = {} if kind in ("bytes", "prefixed", "appends", *OFFSETS) else {"unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **unknown, **settings}), encoding="utf-8")
    return folder


def _fast(kind: str) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    common: dict[str, Any] = {"vocab_size": SIZE, "special_tokens": SPECIAL, "show_progress": False}
    trainer: Any = trainers.BpeTrainer(**common)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind in ("bytes", "prefixed", "appends", *OFFSETS):
        tokenizer = Tokenizer(models.BPE())
        if kind in ("composed", "compatible"):
            tokenizer.normalizer = normalizers.NFC() if kind == "composed" else normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefixed")
        trainer = trainers.BpeTrainer(**common, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    elif kind == "prepended":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**common)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(**common, unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind == "trimmed":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        return tokenizer
    ends = " </s>" if kind == "appends" else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{ends}", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def _write_slow(folder: Path, kind: str, settings: dict[str, Any]) -> None:
    config: dict[str, Any] = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 0}
    if kind == "ctrl":
        config = {"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>"}
        write_ctrl(folder, [("t", "h"), ("th", "e</w>"), ("o", "n"), ("i", "s</w>"), ("T", "o")])
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")


def write_ctrl(folder: Path, merges: list[tuple[str, str]]) -> None:
    """A slow tokenizer's files: its vocabulary is the same whatever it merges."""
    letters = sorted({c for text in CORPUS for c in text if not c.isspace()})
    pairs = {a + b for a, b in [("t", "h"), ("th", "e</w>"), ("o", "n"), ("i", "s</w>"), ("T", "o"), ("h", "e</w>")]}
    made = [*pairs, *(a + b for a, b in merges)]
    pieces = dict.fromkeys(p[:-4] if p.endswith("</w>") else p + "@@" for p in sorted({*made, *letters}))
    pieces |= dict.fromkeys([*letters, "on", "th", "To"])
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", *sorted(pieces)])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
