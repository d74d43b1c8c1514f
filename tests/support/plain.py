"""The plain way, which every fast one is compared with: `transformers` on one sentence alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def plain_states(model: Any, sentence: Any, num_blocks: int) -> np.ndarray:
    """Last-token states of all L + 2 layers, float64 [L + 2, H]; block L from a hook on the last block alone."""
    import torch

    decoder = model.get_decoder()
    last_block = [None]
    blocks = next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == num_blocks)

    def keep(module, args, output):
        last_block[0] = (output[0] if isinstance(output, tuple) else output)[0, -1]

    handle = blocks[num_blocks - 1].register_forward_hook(keep)
    with torch.inference_mode():
        ids = torch.as_tensor(np.asarray(sentence, np.int64))[None]
        states = decoder(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    assert len(states) == num_blocks + 1
    rows = [s[0, -1] for s in states[:num_blocks]] + [last_block[0], states[num_blocks][0, -1]]
    return torch.stack(rows).double().numpy()


def relative_error(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """‖a − b‖₂ / ‖b‖₂ over the last axis."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    return np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)


def random_sentences(seed: int, vocab: int, *, longest: int = 60, count: int = 40) -> list[np.ndarray]:
    """Random token ids that share prefixes, repeat each other, and range from one token up."""
    draw = np.random.default_rng(seed)
    trunks = [draw.integers(3, vocab, draw.integers(2, longest)) for _ in range(4)]
    made = [draw.integers(3, vocab, 1), trunks[0], trunks[0], trunks[1][:2]]
    while len(made) < count:
        trunk = trunks[draw.integers(len(trunks))]
        cut = draw.integers(0, len(trunk))
        tail = draw.integers(3, vocab, draw.integers(1, max(2, longest - cut)))
        made.append(np.concatenate([trunk[:cut], tail])[:longest])
    return [m.astype(np.int32) for m in made]
