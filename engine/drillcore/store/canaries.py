"""Canaries: states of a few fixed sentences in a model's group, by which a later change of the model is noticed.

One array beside the groups of the datasets. Its dimensions have names of their own, since xarray would compare those of
the datasets with them; its attributes, written last, say what the states are of.

Shape legend: C canaries, K layers, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import CONTENTS, MEND, attributes_of, put_attributes
from drillcore.store.contents import array_digests
from drillcore.store.layout import array_of

FACTS = ("texts", "ids", "tokenized", "special_tokens", "layers", "dtype", "own_dtype", "machine", "model", "versions")
DIMS = ("canary", "canary_layer", "canary_hidden")


@dataclass(frozen=True)
class Canaries:
    """What a store holds of a model's canaries.

    states_CKH: float32, NaN where the model gave none. facts: JSON-ready, under the names of `FACTS`: texts, the token
    ids that the states are of and those that the tokenizer gave, layers, dtypes, machine, and what was known of the
    model and the libraries.
    """

    states_CKH: NDArray[np.float32]
    facts: dict[str, Any]


def read_canaries(model: zarr.Group) -> Canaries | None:
    """The canaries of a model's group; None where there are none, or they were not written to the end.

    Raises DamageError where they cannot be read.
    """
    contents = attributes_of(model).get(CONTENTS)
    if CANARIES not in model or (contents is not None and CANARIES not in contents):
        return None
    array = array_of(model, CANARIES)
    facts = dict(array.attrs)
    if not set(FACTS) <= facts.keys():
        return None
    try:
        return Canaries(np.asarray(array[...], np.float32), facts)
    except (ValueError, RuntimeError, TypeError) as error:
        raise DamageError(f"{model.path}: {CANARIES} cannot be read: {error}", hint=MEND) from None


def write_canaries(model: zarr.Group, canaries: Canaries) -> None:
    """Write the canaries of a model's group in place of any earlier ones; raises CommitError."""
    before = attributes_of(model)
    contents = {name: digests for name, digests in before.get(CONTENTS, {}).items() if name != CANARIES}
    put_attributes(model.store, model.path, {**before, CONTENTS: contents})
    array = model.create_array(
        CANARIES,
        shape=canaries.states_CKH.shape,
        dtype="float32",
        chunks=tuple(max(1, size) for size in canaries.states_CKH.shape),
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        fill_value=np.nan,
        dimension_names=list(DIMS),
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    array[...] = canaries.states_CKH
    array.attrs.update(canaries.facts)
    written = {**contents, CANARIES: array_digests(model, array)}
    put_attributes(model.store, model.path, {**before, CONTENTS: written})
