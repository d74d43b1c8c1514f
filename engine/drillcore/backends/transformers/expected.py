"""The names that a class of transformers expects in a checkpoint, and which of them hidden states depend on."""

from __future__ import annotations

import re
from typing import Any

from drillcore.backends.transformers.parts import find_parts

NUMBERED = re.compile(r"(.*?)\.(\d+)\.")


class Expected:
    """The names that a class expects in a checkpoint, and which of them hidden states depend on."""

    def __init__(self, causal: Any) -> None:
        self.class_name = type(causal).__name__
        self.names = set(causal.state_dict())
        paths = {id(module): name + "." for name, module in causal.named_modules() if name}
        self._decoder = paths.get(id(find_parts(causal).decoder), "")
        self._head = paths.get(id(causal.get_output_embeddings()), "\0")
        self.base = f"{causal.base_model_prefix}."
        self.floating = {n for n, t in causal.state_dict().items() if t.is_floating_point()}
        # Buffers that are computed, not read: older checkpoints hold some of them.
        self.computed = {name for name, _ in causal.named_buffers()} - self.names
        declared = [re.compile(pattern) for pattern in causal._keys_to_ignore_on_load_missing or ()]
        tied = getattr(causal, "all_tied_weights_keys", {})
        # A class may declare that a weight need not be reported; of a buffer it says how to compute it.
        self.unreported = {
            n for n, _ in causal.named_parameters() if n not in tied and any(p.search(n) for p in declared)
        }
        self._passed = [re.compile(pattern) for pattern in causal._keys_to_ignore_on_load_unexpected or ()]
        self.numbers: dict[str, set[int]] = {}
        for prefix, number in filter(None, map(numbered, filter(self.used, self.names))):
            self.numbers.setdefault(prefix, set()).add(number)

    def used(self, name: str) -> bool:
        """Whether hidden states depend on it."""
        return name.startswith(self._decoder) and not name.startswith(self._head)

    def beside(self, name: str) -> bool:
        """Whether neither hidden states nor the head depend on it: a tower for pictures or sound, say."""
        return name.startswith(self.base) and not self.used(name) and not name.startswith(self._head)

    def own_name(self, key: str) -> str:
        """The name that a key of a file has in the model, whose base model may have been saved alone."""
        return next((n for n in (self.base + key, key.removeprefix(self.base)) if n in self.names), key)

    def leaves_out(self, key: str) -> bool:
        """Whether the class passes over a key without reporting it."""
        return (
            any(pattern.search(key) for pattern in self._passed)
            and self.own_name(key) not in self.names
            and not self.is_computed(key)
        )

    def is_computed(self, key: str) -> bool:
        """Whether a key is that of a buffer that the model computes itself."""
        last = key.rsplit(".", 1)[-1]
        ends = {name.rsplit(".", 1)[-1] for name in self.computed} - {"weight", "bias"}
        return key in self.computed or self.base + key in self.computed or last in ends | {"inv_freq", "masked_bias"}

    def in_layer(self, key: str) -> bool | None:
        """Whether a key lies in a layer that the model has; None where it is in no numbered layer of the decoder."""
        for name in (key, self.base + key):
            found = numbered(name)
            if found and found[0] in self.numbers:
                return found[1] in self.numbers[found[0]]
        return None


def numbered(name: str) -> tuple[str, int] | None:
    """The part of a name before its first number, and the number.

    >>> numbered("model.layers.7.mlp.up_proj.weight")
    ('model.layers', 7)
    """
    found = NUMBERED.match(name)
    return (found[1], int(found[2])) if found else None
