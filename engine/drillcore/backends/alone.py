"""Sentences computed one at a time: what stored states are audited against. Numpy only.

Shape legend: C sentences, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In float32 packed and single sentences differ by rounding only, 1e-5 at worst; another sentence's state by 1e-2 and
# more.
BOUND = 1e-4
# A lower precision may be this many times as far from float32 as it is for one sentence at a time.
NOISE_FACTOR = 1.5
# That holds for the root mean square of many sentences. A single state is one draw of the noise: the worst of 4,700
# right ones was 1.48 times as far off as usual, and 1.5 condemned a right store now and then. The state of another
# sentence is off by ten times the noise and more.
SINGLE_NOISE_FACTOR = 3.0
# One unit in the last place: nothing computed in a dtype is expected to be closer.
ONE_STEP = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
# Weights that run in their own dtype only (quantised): single sentences in that dtype.
OWN_DTYPE_BOUNDS = {"float32": BOUND, "bfloat16": 6e-2, "float16": 1e-2}
# Quantised weights: codes of activations depend on the other sentences of a batch, and jump where rounding does. Such
# noise is measured and allowed 3 times, up to this; the state of the layer before is off by 0.14 and more.
QUANTISED_BOUND = 9e-2
# Batches are used from the start only where they stay below this, so that no later row exceeds the other.
QUANTISED_AT_FIRST = 6e-2
# A state that is further out is not explained by rounding in float32; a nearer one by so many times its own noise.
LARGEST_NOISE, FLOAT32_NOISE_FACTOR = 1e-2, 4.0
# The same of a lower precision: a nearer one is explained by 3 times what other ways to compute it give.
LARGEST_LOWER_NOISE = QUANTISED_BOUND
# A sentence this many times as noisy as the middle one says nothing about the others.
OUTLIER = 4.0
# An undecided router, or indexer, takes other experts after rounding in a lower precision: only gross errors count.
ROUTED_BOUND = 0.25
# Rounding to float16 in the store: relative, and of values too small for its full precision.
HALF_STEP, HALF_SMALLEST = 2.0**-11, 2.0**-25


@dataclass(frozen=True)
class Alone:
    """States of sentences, each computed alone by plain `transformers`.

    states_CKH: float32, NaN where `transformers` gives no state. dtype: of the computation. own_dtype: of the model.
    noise_CK: ‖a − b‖₂ / ‖b‖₂ of the model's own dtype, one sentence at a time, against these states; zero where it is
    the dtype of the computation, but for quantised weights: that of some sentences in other batches. machine: device
    and threads that it ran on. routed: the model chooses among experts or tokens. seconds: spent. peaks_CK3: of means,
    how many times as large the largest of their tokens' states is as the middle one, and as all others together, and
    the number of that token in its sentence; None where there are no means. quantised: whether the weights are.
    """

    states_CKH: NDArray[np.float32]
    noise_CK: NDArray[np.float64]
    dtype: str
    own_dtype: str
    machine: str
    routed: bool
    seconds: float
    peaks_CK3: NDArray[np.float64] | None = None
    quantised: bool = False

    def __len__(self) -> int:
        return len(self.states_CKH)

    @property
    def quantised_bound(self) -> float:
        """What the noise of quantised weights allows; 0 for others."""
        return quantised_bound(self.noise_CK) if self.quantised else 0.0

    def part(self, start: int, stop: int) -> Alone:
        """Sentences start .. stop - 1."""
        return self.take(np.arange(start, stop))

    def at(self, slots: Sequence[int]) -> Alone:
        """The same sentences at the layers at these positions."""
        index = np.array(slots, np.int64)
        peaks_CK3 = None if self.peaks_CK3 is None else self.peaks_CK3[:, index]
        return replace(
            self, states_CKH=self.states_CKH[:, index], noise_CK=self.noise_CK[:, index], peaks_CK3=peaks_CK3
        )

    def take(self, places: NDArray[np.int64]) -> Alone:
        """The sentences at these places, in that order."""
        peaks_CK3 = None if self.peaks_CK3 is None else self.peaks_CK3[places]
        return replace(self, states_CKH=self.states_CKH[places], noise_CK=self.noise_CK[places], peaks_CK3=peaks_CK3)

    def bounds_CK(self, own_dtype: str, store_dtype: str = "float32") -> NDArray[np.float64]:
        """The largest relative error that passes, by sentence and layer.

        own_dtype: that the audited states were computed in. The bound is that of float32, 1e-4; in a lower precision
        3 times the noise of one sentence at a time, which is that of the sentence or the largest usual one of the
        layer, and at least one unit in the last place. Rounding to float16 in the store is added.
        """
        if self.dtype == own_dtype or own_dtype not in ONE_STEP:
            plain = OWN_DTYPE_BOUNDS.get(own_dtype, BOUND)
            bounds_CK = np.full(self.noise_CK.shape, max(plain, self.quantised_bound))
        elif own_dtype != self.own_dtype:
            bounds_CK = np.full(self.noise_CK.shape, OWN_DTYPE_BOUNDS[own_dtype])
        else:
            usual_CK = np.where(self.noise_CK <= OUTLIER * np.median(self.noise_CK, axis=0), self.noise_CK, 0.0)
            scale_CK = np.maximum(self.noise_CK, usual_CK.max(axis=0, initial=0.0))
            bounds_CK = np.maximum(SINGLE_NOISE_FACTOR * scale_CK, ONE_STEP[own_dtype])
        if self.routed and own_dtype in ONE_STEP:
            bounds_CK = np.maximum(bounds_CK, ROUTED_BOUND)
        if store_dtype == "float16":
            size_CK = np.maximum(np.linalg.norm(self.states_CKH.astype(np.float64), axis=2), 1e-30)
            bounds_CK = bounds_CK + HALF_STEP + HALF_SMALLEST * np.sqrt(self.states_CKH.shape[2]) / size_CK
        return bounds_CK


def quantised_bound(noise_CK: NDArray[np.float64], most: float = QUANTISED_BOUND) -> float:
    """The largest relative error that passes for quantised weights of this noise, beside the bound of their dtype.

    >>> quantised_bound(np.array([[0.0, 0.005], [0.0, 0.002]])), quantised_bound(np.array([[0.4]]))
    (0.015, 0.09)
    """
    return min(most, SINGLE_NOISE_FACTOR * float(noise_CK.max(initial=0.0)))


def relative_errors(got: NDArray[Any], want: NDArray[Any]) -> NDArray[np.float64]:
    """‖a − b‖₂ / ‖b‖₂ over the last axis; NaN where either holds a NaN.

    >>> relative_errors(np.array([[3.0, 4.0]]), np.array([[3.0, 5.0]])).round(3).tolist()
    [0.171]
    """
    exact = want.astype(np.float64)
    size, distance = np.linalg.norm(exact, axis=-1), np.linalg.norm(got.astype(np.float64) - exact, axis=-1)
    return np.asarray(distance / np.maximum(size, 1e-30))
