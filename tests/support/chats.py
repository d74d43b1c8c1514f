"""Chat templates of several styles, and conversations whose rendering and places are written here a second time."""

from __future__ import annotations

import json
import random
from pathlib import Path

from support.tiny import tiny_model

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# Drops the reasoning of all answers but the last, as models that think do, and adds a default system prompt.
REASONING = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' and not loop.last and '</think>' in c %}{% set c = c.split('</think>')[-1].lstrip() %}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STYLES = {"chatml": CHATML, "llama3": LLAMA3, "reasoning": REASONING}
WRITTEN = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>")
WORDS = ["Toronto", "old", "שלום", "👩‍👩‍👧‍👦", "e\u0301", "\n", "  ", "assistant", "user", "no?", "1999", "<", "}}"]


def chat_model(folder: Path, architecture: str, style: str) -> Path:
    """A tiny model whose byte-level tokenizer has a chat template and its special tokens."""
    tiny_model(folder, architecture)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    first = max(tokenizer["model"]["vocab"].values()) + 1
    about = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": first + i, "content": text, **about} for i, text in enumerate(WRITTEN)]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"chat_template": STYLES[style], "additional_special_tokens": list(WRITTEN)}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def conversation(draw: random.Random, think: bool = False) -> list[dict[str, str]]:
    """Messages in turn, some with reasoning before the answer, some after a system message."""
    said = []
    for turn in range(draw.randint(1, 5)):
        role = "user" if turn % 2 == 0 else "assistant"
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 6))) + draw.choice(["x", ".", "é"])
        thought = "<think>" + " ".join(draw.choices(WORDS, k=3)) + "</think>" if think and role == "assistant" else ""
        said.append({"role": role, "content": thought + "w" + text})
    return said if draw.random() < 0.5 else [{"role": "system", "content": "Be brief."}, *said]


def rendered(messages: list[dict[str, str]], style: str, prompt: bool) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as its template writes it, and the characters of each message's text."""
    text, places = "", []
    if style == "llama3":
        text = "<|begin_of_text|>"
    elif style == "reasoning" and messages[0]["role"] != "system":
        text = "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    for number, message in enumerate(messages):
        content, role = message["content"], message["role"]
        if style == "llama3":
            content = content.strip()
        if style == "reasoning" and role == "assistant" and number < len(messages) - 1 and "</think>" in content:
            content = content.split("</think>")[-1].lstrip()
        ends = style == "llama3"
        text += f"<|start_header_id|>{role}<|end_header_id|>\n\n" if ends else f"<|im_start|>{role}\n"
        places.append((len(text), len(text) + len(content)))
        text += content + ("<|eot_id|>" if ends else "<|im_end|>\n")
    if prompt:
        text += "<|start_header_id|>assistant<|end_header_id|>\n\n" if style == "llama3" else "<|im_start|>assistant\n"
    return text, places
