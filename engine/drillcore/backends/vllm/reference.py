"""The same model by `transformers`: reference states for another engine's self-check, and the model's own head.

The model is read, run on the check's sentences one at a time, and its decoder layers are freed before the engine
starts: the two are never in memory together. The final norm, the embedding and the head stay.

Shape legend: C sentences of the check, K layers, G states, H hidden size, V vocabulary.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends import self_check
from drillcore.backends.base import FloatStates
from drillcore.backends.head import head_problem, unembed
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.loading import load_model
from drillcore.errors import ModelError
from drillcore.job.fields import Extract
from drillcore.tokens.sequences import Sequences


class Reference:
    """Reference states of some sentences, and the head.

    weight_bytes: of the whole model in its dtype. dtype: its name. cut: number of decoder layers that were read. notes:
    what the user should know of the model's files.
    """

    def __init__(
        self,
        source: ModelSource,
        extract: Extract,
        layers: Sequence[int],
        sentences: Sequences,
        save_to: Path | None = None,
    ) -> None:
        """Read the model and run it. `save_to`: also write its weights there, for an engine that reads files only.

        Raises ModelError where it is not a causal decoder.
        """
        self._layers, self._sentences = tuple(layers), sentences
        if extract.tensor_parallel > 1 and torch.cuda.is_available():
            source = replace(source, model=source.model.model_copy(update={"device_map": "auto"}))
        # sdpa, the default of transformers, silently leaves out the cap on attention scores.
        capped = getattr(source.config.get_text_config(decoder=True), "attn_logit_softcapping", None)
        self._loaded = load_model(source, extract, self._layers[-1], "eager" if capped else None)
        self.cut, self.notes = self._loaded.cut, self._loaded.notes
        self.dtype = str(self._loaded.dtype).removeprefix("torch.")
        self.weight_bytes = sum(p.numel() * p.element_size() for p in self._loaded.causal.parameters())
        decoder = self._loaded.decoder
        longest = sentences[int(np.argmax(sentences.lengths_N))]
        if len(longest) >= 2 and not self_check.is_causal(decoder, longest):
            raise ModelError(
                f"model {source.model.id} is not a causal decoder: what follows a token changes its state",
                hint="Only decoders that read from left to right are supported.",
            )
        self._states = [{k: v.cpu() for k, v in self_check.reference(decoder, s, self.cut).items()} for s in sentences]
        if save_to is not None:
            self._loaded.causal.save_pretrained(save_to)
        self._free_decoder_layers()

    def _free_decoder_layers(self) -> None:
        del self._loaded.decoder_layers[:]
        self._loaded.causal.to("cpu")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def errors(self, states_CKH: NDArray[Any]) -> dict[int, float]:
        """Worst ‖a − b‖₂ / ‖b‖₂ by layer of an engine's states; layer L after the final norm, recomputed here."""
        worst = dict.fromkeys(self._layers, 0.0)
        norm = self._loaded.final_norm
        for reference, states_KH in zip(self._states, states_CKH, strict=True):
            for layer, state_H in zip(self._layers, states_KH, strict=True):
                want = reference[self.cut + 1 if layer == self.cut else layer]
                got = torch.as_tensor(state_H)
                if layer == self.cut and norm is not None:
                    got = norm(got.to(want.dtype))
                difference = (got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30)
                # max() would drop a NaN.
                worst[layer] = float(np.maximum(worst[layer], float(difference)))
        return worst

    def head_problem(self) -> str:
        """Why the model's head cannot be used on states; empty where its own logits prove that it can."""
        return head_problem(self._loaded)

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of layer L: the model's own final norm, unembedding, scale and softcap."""
        return unembed(self._loaded, states_GH)
