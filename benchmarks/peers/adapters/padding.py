"""What the adapters share: right-padded batches of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def right_padded(sentences: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids and mask, [sentence, longest], and the place of each sentence's last token."""
    lengths = torch.tensor([len(s) for s in sentences])
    ids = torch.zeros(len(sentences), int(lengths.max()), dtype=torch.long)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = torch.as_tensor(np.asarray(sentence, np.int64))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids, mask, lengths - 1


def blocks_of(decoder: torch.nn.Module, num_blocks: int) -> torch.nn.ModuleList:
    """The transformer blocks of a base model."""
    return next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == num_blocks)
