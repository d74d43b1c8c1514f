"""Whether a model's weights are plain numbers in files: what shards it, or streams it, reads parts of those files.

Both ask before anything heavy is imported, so that this stands in a module of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource

# Fields of a model's entry that leave no plain weights in files.
FIELDS = ("random_weights", "quantization", "gguf_file", "device_map")


def why_not_plain(source: ModelSource, *, one_by_one: bool = False) -> Iterator[str]:
    """What speaks against it, each as the end of a sentence.

    one_by_one: whole weights are read, one after the other, so that they may be dequantised, and get an adapter.
    """
    from drillcore.backends.transformers.dequantised import is_dequantised
    from drillcore.backends.transformers.quantised import is_quantised, quantisation

    are_plain = one_by_one and is_dequantised(source)
    for name in FIELDS:
        if getattr(source.model, name) and not (are_plain and name == "quantization"):
            yield f"does not go with {name}"
    if source.held is not None:
        yield "does not go with a model in memory: weights are read from files"
    if source.adapter is not None and not one_by_one:
        yield "does not go with an adapter: merge it into the model and save that"
    if is_quantised(source.config) and not are_plain:
        method = (quantisation(source.config) or {}).get("quant_method")
        also = ", unless quantization: fp8-dequantized is set for it" if one_by_one and method == "fp8" else ""
        yield f"does not go with quantised weights{also}"
