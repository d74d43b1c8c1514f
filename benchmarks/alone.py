"""The plain way that every contender must agree with: `transformers`, one sentence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.quiet import quiet_transformers
from workload import Text


def states_alone(model: str, texts: list[Text]) -> dict[str, NDArray[np.float64]]:
    """By text, float64 [checked sentence, L + 2, hidden]; block L from a hook on the last block alone."""
    import torch
    from transformers import AutoModel

    with quiet_transformers():
        decoder = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    num_blocks = decoder.config.num_hidden_layers
    kept: list[Any] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        kept[:] = [output[0] if isinstance(output, tuple) else output]

    blocks = next(m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == num_blocks)
    blocks[-1].register_forward_hook(keep)

    def alone(sentence: Any) -> NDArray[np.float64]:
        with torch.inference_mode():
            ids = torch.as_tensor(np.asarray(sentence, np.int64))[None]
            states = decoder(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        layers = [*states[:num_blocks], kept[0], states[num_blocks]]
        return np.stack([layer[0, -1].double().numpy() for layer in layers])

    return {text.name: np.stack([alone(text.tokens[i]) for i in text.checked]) for text in texts}


def disagreement(got: Any, want: NDArray[np.float64]) -> float:
    """The largest ‖a − b‖₂ / ‖b‖₂ over sentences and layers; not finite where a state is not."""
    difference = np.linalg.norm(np.asarray(got, np.float64) - want, axis=-1)
    return float((difference / np.linalg.norm(want, axis=-1)).max())
