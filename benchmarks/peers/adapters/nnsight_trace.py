"""nnsight: one trace for each batch of 32 as they come, saving the last token's states only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nnsight
import numpy as np
import torch
from padding import right_padded

PACKAGES = ("nnsight", "torch", "transformers")
BATCH = 32


def load(model: str, threads: int, dtype: str) -> Callable[[list[Any]], Any]:
    """Read the model; the function takes token ids and returns float32 states [sentence, L + 2, hidden]."""
    torch.set_num_threads(threads)
    wrapped = nnsight.TransformersModel(
        model, task="text-generation", dispatch=True, device_map="cpu", dtype=getattr(torch, dtype)
    )

    def run(sentences: list[Any]) -> Any:
        batches = []
        for start in range(0, len(sentences), BATCH):
            ids, mask, last = right_padded(sentences[start : start + BATCH])
            row = torch.arange(len(ids))
            with torch.inference_mode(), wrapped.trace({"input_ids": ids, "attention_mask": mask}):
                states = nnsight.save([])
                states.append(wrapped.model.layers[0].input[row, last])
                for block in wrapped.model.layers:
                    output = block.output
                    states.append((output[0] if isinstance(output, tuple) else output)[row, last])
                states.append(wrapped.model.norm.output[row, last])
            batches.append(torch.stack(list(states), dim=1).float().numpy())
        return np.concatenate(batches)

    return run
