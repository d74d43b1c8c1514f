"""The plain way that every contender must agree with: `transformers`, one sentence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.workload import Text
from drillcore.system.quiet import quiet_transformers


class Plain:
    """A model as `transformers` runs it; block L from a hook on the last block alone."""

    def __init__(self, model: str, dtype: str = "float32") -> None:
        import torch
        from transformers import AutoModel

        with quiet_transformers():
            self._decoder = AutoModel.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self._num_blocks = self._decoder.config.num_hidden_layers
        self._last: list[Any] = []
        blocks = next(
            m for m in self._decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == self._num_blocks
        )
        blocks[-1].register_forward_hook(self._take)

    def _take(self, module: Any, args: Any, output: Any) -> None:
        self._last[:] = [output[0] if isinstance(output, tuple) else output]

    def states(self, sentence: Any, *, copies: int = 1, after: Any = ()) -> NDArray[np.float64]:
        """float64 [L + 2, hidden] of the last token; with equal rows beside it, or tokens after it, which change
        nothing but the shapes of the products.
        """
        import torch

        ids = [*np.asarray(sentence, np.int64).tolist(), *after]
        with torch.inference_mode():
            output = self._decoder(input_ids=torch.tensor([ids] * copies), output_hidden_states=True, use_cache=False)
        states = output.hidden_states
        layers = [*states[: self._num_blocks], self._last[0], states[self._num_blocks]]
        return np.stack([layer[0, len(sentence) - 1].double().numpy() for layer in layers])


def states_alone(model: str, texts: list[Text], dtype: str = "float32") -> dict[str, NDArray[np.float64]]:
    """By text, float64 [checked sentence, L + 2, hidden]."""
    plain = Plain(model, dtype)
    return {text.name: np.stack([plain.states(text.tokens[i]) for i in text.checked]) for text in texts}


def differences(got: Any, want: NDArray[np.float64]) -> NDArray[np.float64]:
    """‖a − b‖₂ / ‖b‖₂ of every sentence and layer."""
    difference = np.linalg.norm(np.asarray(got, np.float64) - want, axis=-1)
    relative: NDArray[np.float64] = difference / np.linalg.norm(want, axis=-1)
    return relative


def disagreement(got: Any, want: NDArray[np.float64]) -> float:
    """The largest of `differences`; not finite where a state is not."""
    return float(differences(got, want).max())
