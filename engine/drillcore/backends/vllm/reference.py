"""The same model by `transformers`: reference states for another engine's self-check, and the model's own head.

The model is read, run on the check's sentences one at a time, and its decoder layers are freed before the engine
starts: the two are never in memory together. The final norm, the embedding and the head stay.

Shape legend: C sentences of the check, K layers, G states, H hidden size, V vocabulary.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends.base import FloatStates, SelfCheck
from drillcore.backends.head import head_problem, unembed
from drillcore.backends.lengths import length_rules
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.checking import Checked, check_engine, reference_states
from drillcore.backends.transformers.plain import load_plain
from drillcore.job.extract import Extract
from drillcore.system.quiet import quiet_transformers
from drillcore.tokens.sequences import Sequences


class Reference:
    """Reference states of some sentences, and the head.

    weight_bytes: of the whole model in its dtype. notes: what the user should know of the model's files.
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
        self._layers = tuple(layers)
        self._loaded = load_plain(source, extract, self._layers)
        self.notes = self._loaded.notes
        self.weight_bytes = sum(p.numel() * p.element_size() for p in self._loaded.causal.parameters())
        self._checked = Checked(self._loaded, self._layers, rules=length_rules(source.config))
        self._alone = reference_states(self._checked, sentences)
        if save_to is not None:
            with quiet_transformers():
                self._loaded.causal.save_pretrained(save_to)
        self._free_decoder_layers()

    def _free_decoder_layers(self) -> None:
        del self._loaded.decoder_layers[:]
        self._loaded.causal.to("cpu")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def check(self, states_CKH: NDArray[Any], layout: str, notes: tuple[str, ...]) -> SelfCheck:
        """The check of an engine's states: float32 against its bound, a lower dtype against its own noise."""
        return check_engine(self._checked, states_CKH, self._alone, layout, notes)

    def head_problem(self) -> str:
        """Why the model's head cannot be used on states; empty where its own logits prove that it can."""
        return head_problem(self._loaded)

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of layer L: the model's own final norm, unembedding, scale and softcap."""
        return unembed(self._loaded, states_GH)
