"""What every backend promises: the same states of the same tokens, whichever engine runs the model.

Shape legend: N sentences of a block, S sentences of a batch, G gathered tokens, K layers asked for, H hidden size,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.alone import Alone
from drillcore.errors import ModelError
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

FloatStates = NDArray[Any]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before its weights are read.

    num_layers: L of the layer contract. max_tokens: longest sentence (its context), or None where its positions have
    no limit. num_parameters: without embeddings and LM head; a node costs two operations a parameter.
    """

    model_type: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_tokens: int | None
    num_parameters: int


@dataclass(frozen=True)
class States:
    """Hidden states of one batch, on the host.

    values_GKH: the model's dtype (bfloat16 is that of ml_dtypes), or float16 where the work asks for it. absmax_GK:
    float32, largest magnitude, taken on the device before any cast; not finite where a state is not. sentence_S:
    sentence numbers within the block; of a group with places, the numbers of its rows. row_S: which gathered row is
    each sentence's state. num_nodes: tokens computed for it; num_padding: padding computed beside them, both told once
    for a batch. note: what the user should know about this batch. group: number of the work's places that it is of.
    """

    values_GKH: FloatStates
    absmax_GK: NDArray[np.float32]
    sentence_S: NDArray[np.int64]
    row_S: NDArray[np.int64]
    num_nodes: int
    num_padding: int
    note: str = ""
    group: int = 0


@dataclass(frozen=True)
class Work:
    """A block of sentences made ready for a backend: the input of `run`.

    num_nodes: tokens to compute after sharing; num_padding: padding beside them; parts: known to the backend alone.
    store_dtype: of the store that the states are computed for, if any: a backend may round to it on its device. places:
    of the groups that are wanted; none for the last token of each sentence.
    """

    num_sentences: int
    num_nodes: int
    num_padding: int
    parts: list[Any]
    store_dtype: str = ""
    places: tuple[Places, ...] = ()


@dataclass(frozen=True)
class RoundingCheck:
    """A dtype below float32 against float32, by layer: its noise in our batches and for one sentence at a time.

    ours, alone: root mean square over the sentences of ‖a − b‖₂ / ‖b‖₂. A layer passes where ours is at most `factor`
    times alone, or at most `one_step` of the dtype.

    >>> RoundingCheck("bfloat16", {0: 0.0, 1: 0.012}, {0: 0.0, 1: 0.010}, factor=1.5, one_step=2**-8).passed
    True
    """

    dtype: str
    ours: dict[int, float]
    alone: dict[int, float]
    factor: float
    one_step: float

    @property
    def worst_ratio(self) -> float:
        """Largest ratio of ours to what it is measured by, of all layers; a NaN stays one."""
        floor = self.one_step / self.factor
        ratios = [ours / max(self.alone[layer], floor) for layer, ours in self.ours.items()]
        return float(np.max(ratios)) if ratios else 0.0

    @property
    def passed(self) -> bool:
        """Whether every layer is within the bound (a NaN is not)."""
        return self.worst_ratio <= self.factor


@dataclass(frozen=True)
class SelfCheck:
    """The comparison with `transformers` one sentence at a time, made at every load.

    relative_error: ‖a − b‖₂ / ‖b‖₂ in float32, the worst over sentences, by layer. bound: the largest that passes.
    rounding: of a dtype below float32, or None.

    >>> SelfCheck("packed", 1e-4, {0: 0.0, 1: 2e-6}, num_sentences=7).passed
    True
    """

    layout: str
    bound: float
    relative_error: dict[int, float]
    num_sentences: int
    notes: tuple[str, ...] = ()
    rounding: RoundingCheck | None = None

    @property
    def worst(self) -> float:
        """Largest relative error of all layers."""
        return max(self.relative_error.values(), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether every layer is within the bound (a NaN is not), and the dtype within its noise."""
        within = all(error <= self.bound for error in self.relative_error.values())
        return within and (self.rounding is None or self.rounding.passed)

    @property
    def failure(self) -> str:
        """What is out of bounds, with its figures; empty where nothing is."""
        layer = max(self.relative_error, key=lambda k: np.nan_to_num(self.relative_error[k], nan=np.inf), default=0)
        error = self.relative_error.get(layer, 0.0)
        if not error <= self.bound:
            return f"relative error {error:.2g} at layer {layer}, bound {self.bound:.2g}"
        if self.rounding is not None and not self.rounding.passed:
            ratio, factor = self.rounding.worst_ratio, self.rounding.factor
            return f"{self.rounding.dtype} is {ratio:.2g} times as noisy as one sentence at a time, bound {factor:.2g}"
        return ""


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`: the numerics of a loaded model and the check that they are right.

    numerics: JSON-ready; everything that decides bytes. load_seconds: reading weights and checking. choice: which
    backend was chosen and why, if the job left it open and it was chosen now; JSON-ready. head_problem: why the model
    cannot predict tokens from states; empty where its own logits prove that it can. alone: states of the sentences that
    the task wanted computed one at a time. compiled: seconds, graphs and breaks of what was compiled. memory: bytes
    of the device, free and for each node of a batch, that the batch was planned by. Both JSON-ready. is_reused: whether
    an earlier run of this process loaded and checked the model. streams: whether its weights are streamed.
    """

    numerics: dict[str, Any]
    check: SelfCheck
    load_seconds: float
    notes: tuple[str, ...] = field(default=())
    choice: dict[str, Any] = field(default_factory=dict)
    head_problem: str = ""
    alone: Alone | None = None
    compiled: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    is_reused: bool = False
    streams: bool = False


class Backend(Protocol):
    """An engine with one model loaded."""

    facts: ModelFacts

    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Resolve the numerics (or take the `stored` ones) and check them against `transformers`.

        Raises SelfCheckError where no layout passes.
        """

    def lay_out(self, block: Sequences) -> Work:
        """Make a block of sentences ready, on the CPU; another thread may call `run` meanwhile."""

    def run(self, work: Work) -> Iterator[States]:
        """Hidden states of every sentence of the block, batch by batch in any order."""

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of layer L: the model's own final norm, unembedding, scale and softcap."""

    def close(self) -> None:
        """Free the device and end every process that was started."""


class Audited(Backend, Protocol):
    """A backend whose states are those of `transformers`, and which can compute sentences in that plain way."""

    def alone(self, sentences: Sequences, places: Places | None = None) -> Alone:
        """States of each sentence alone, by plain `transformers`: no packs, no hooks, float32 where that is possible.

        places: tokens that the mean is taken over; the last one of each sentence where there are none.
        Called before `prepare`, when an engine may not have its memory yet.
        """


def all_states(backend: Backend, sentences: Sequences) -> NDArray[np.float32]:
    """States [N, K, H] of at least one sentence, float32, in the sentences' order."""
    return states_of(backend, backend.lay_out(sentences))


def states_of(backend: Backend, work: Work) -> NDArray[np.float32]:
    """States [N, K, H] of the sentences of this work, float32, in their order."""
    parts = list(backend.run(work))
    states_NKH = np.empty((work.num_sentences, *parts[0].values_GKH.shape[1:]), np.float32)
    for part in parts:
        states_NKH[part.sentence_S] = part.values_GKH[part.row_S]
    return states_NKH


def prediction_refused(model_id: str, problem: str) -> ModelError:
    """The error that ends a job which asks for token prediction where a model's head is not proved."""
    return ModelError(
        f"token prediction is refused for model {model_id}: {problem}",
        hint="Leave out expected_next and candidates for this model; its hidden states are not affected.",
    )
