"""Random texts whose characters and tokens do not align, jobs that take states at places in them, and what is right.

The places are worked out here from the bytes of tokens, not from a tokenizer's offsets.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drillcore.job.fields import Job, LoadedJob
from drillcore.runtime.runner import run_stages
from drillcore.store.tree import open_tree
from drillcore.system.progress import Silent
from drillcore.tokens.tokenizer import BYTES

PIECES = (
    "the old ",
    "river ",
    "Zoë ",
    "e\u0301té ",
    "مدينة ",
    "שלום ",
    "👩‍🚀",
    "🇨🇦 ",
    "北京",
    "naïve ",
    "ﬁn",
    "a",
    " ",
    "\n",
    "¿ñ? ",
)
ENTITIES = ("Ada Lovelace", "José 👩‍🚀 Núñez", "محمد", "北京", "e\u0301")


def rows_of(seed: int, count: int) -> list[dict[str, Any]]:
    """Rows with a text, an entity in it and where that stands; many share their beginning."""
    draw = random.Random(seed)
    begun = ["".join(draw.choices(PIECES, k=draw.randint(2, 8))) for _ in range(3)]
    rows = []
    for number in range(count):
        before = draw.choice(begun) + "".join(draw.choices(PIECES, k=draw.randint(0, 4)))
        entity = draw.choice(ENTITIES)
        after = "".join(draw.choices(PIECES, k=draw.randint(1, 6)))
        text = f"{before}{entity}{draw.choice(['', ' ', 's'])} went to {after}!"
        start = text.rindex(entity) if draw.random() < 0.5 else text.index(entity)
        rows.append({"text": text, "label": "ab"[number % 2], "from": start, "to": start + len(entity), "who": entity})
    return rows


def run_job(folder: Path, model: str, dataset: dict[str, Any], positions: list[Any], **extract: Any) -> Any:
    """Extract a dataset at some positions; returns the model's groups."""
    job = {
        "name": "job",
        "models": [{"id": model, "as": "m"}],
        "datasets": [{"name": "d", **dataset}],
        "extract": {"threads": 1, "positions": positions, **extract},
    }
    loaded = LoadedJob(job=Job.model_validate(job), base=folder, source=str(folder / "job.yaml"))
    run_stages(loaded, ("extract",), Silent())
    return open_tree(loaded.store)["m"]


class Plain:
    """A model and its tokenizer as `transformers` reads them."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.num_layers = self.model.config.num_hidden_layers

    def states(self, ids: list[int]) -> np.ndarray:
        """States [T, K, H] of every token of one sentence alone, by the layer contract."""
        decoder, last = self.model.get_decoder(), []
        layers = next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == self.num_layers)
        hook = layers[-1].register_forward_hook(
            lambda m, a, out: last.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.inference_mode():
            states = decoder(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
        hook.remove()
        by_layer = [*states[: self.num_layers], last[0].reshape(states[0].shape), states[-1]]
        return torch.stack([s[0] for s in by_layer], 1).numpy()

    def over(self, ids: list[int], written: str, start: int, stop: int) -> list[int]:
        """The tokens that hold a byte of these characters; every token's bytes follow on the one before."""
        first, last = len(written[:start].encode()), len(written[:stop].encode())
        reached, found = 0, []
        for number, piece in enumerate(self.tokenizer.convert_ids_to_tokens(ids)):
            if ids[number] in self.tokenizer.all_special_ids:
                piece_bytes = len(piece.encode()) if piece in written else 0
            else:
                piece_bytes = len(bytes(BYTES[c] for c in piece))
            if reached < last and reached + piece_bytes > first:
                found.append(number)
            reached += piece_bytes
        assert reached == len(written.encode()), "bytes are not those of the text"
        return found


def errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """‖a − b‖₂ / ‖b‖₂ over the last axis."""
    distance = np.linalg.norm(got.astype(np.float64) - want, axis=-1)
    return distance / np.maximum(np.linalg.norm(want.astype(np.float64), axis=-1), 1e-30)
