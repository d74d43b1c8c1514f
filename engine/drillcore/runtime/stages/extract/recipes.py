"""What decides the states of a group: the request, the numerics that answered it, and the token policy.

A group records the recipes that its shards were computed by, so that a later run can tell what changed since. Other
versions, cores or devices are no change: their states are as good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from drillcore.store.layout import Shape
from drillcore.system.files import digest

ATTRIBUTE = "recipes"
# Of the recipe of fingerprints; it did not change with the format of stores.
RECIPE_FORMAT = 1
# Where and with what states were computed, in a request and in its settings of the extraction.
HARDWARE = ("versions", "device", "cores", "device_map")
LATER_PARTS = ("code", "adapter", "adapter_revision")
HARDWARE_SETTINGS = ("device", "threads", "tensor_parallel", "weights")


@dataclass(frozen=True)
class Recipe:
    """request: as `pending.request_of` gives it. numerics: of the backend, with `block_sentences`. All JSON-ready."""

    request: dict[str, Any]
    numerics: dict[str, Any]
    policy: dict[str, Any]

    def common(self, shape: Shape) -> dict[str, Any]:
        """What decides the bytes of every shard of a group beside its rows."""
        return {
            "format": RECIPE_FORMAT,
            "request": self.request,
            "policy": self.policy,
            "store_dtype": shape.store_dtype,
            "numerics": self.numerics,
        }

    def record(self) -> dict[str, Any]:
        """As a group's attributes hold it."""
        return asdict(self)

    def agrees_with(self, request: dict[str, Any], policy: dict[str, Any]) -> bool:
        """Whether nothing but versions, cores or devices differs, and perhaps the tokenizer.

        Fingerprints hold the token ids, and those decide: a tokenizer that is only written in another way is no change.
        """
        before, now = ({k: v for k, v in p.items() if k != "tokenizer"} for p in (self.policy, policy))
        return before == now and essence(self.request) == essence(as_recorded(request, self.request))

    def differences(self, request: dict[str, Any], policy: dict[str, Any]) -> list[str]:
        """What else differs, for a message: each field with the value now and the one before."""
        before, now = essence(self.request), essence(as_recorded(request, self.request))
        settings, wanted = before.pop("extract", {}), now.pop("extract", {})
        pairs = [(f"extract.{k}", settings.get(k), wanted.get(k)) for k in sorted({*settings, *wanted})]
        # The layers' numbers say more than `extract.layers`, where both differ.
        pairs = [p for p in pairs if p[0] != "extract.layers" or before.get("layers") == now.get("layers")]
        pairs += [("layers", before.get("layers"), now.get("layers")), ("dtype", before.get("dtype"), now.get("dtype"))]
        pairs += [(k, self.policy.get(k), policy.get(k)) for k in ("special_tokens", "template", "position")]
        said = [f"{name} is {_short(new)}, it was {_short(old)}" for name, old, new in pairs if old != new]
        said += [f"the {what} of the model changed" for what in _model_parts(before.get("model"), now.get("model"))]
        return said + ["the tokenizer changed"] * (self.policy.get("tokenizer") != policy.get("tokenizer"))

    def hardware_words(self, request: dict[str, Any]) -> str:
        """Versions, cores and device of this recipe, as far as they differ from those of a request."""
        return hardware_words(self.request, request)


def as_recorded(request: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A request without the parts of the model's identity that an earlier version did not record.

    >>> as_recorded({"model": {"config": "a", "code": {}}}, {"model": {"config": "a"}})
    {'model': {'config': 'a'}}
    """
    model, before = request["model"], earlier.get("model", {})
    return {**request, "model": {k: v for k, v in model.items() if k not in LATER_PARTS or k in before}}


def hardware_words(these: dict[str, Any], others: dict[str, Any]) -> str:
    """The versions, cores and device of a request that another one does not share, for a message.

    >>> hardware_words({"versions": {"torch": "2.1"}, "cores": 8}, {"versions": {"torch": "2.2"}, "cores": 8})
    'torch 2.1'
    """
    other = others.get("versions", {})
    words = [f"{name} {version}" for name, version in these.get("versions", {}).items() if other.get(name) != version]
    for name, form in (("device", "{}"), ("cores", "{} threads")):
        if these.get(name) != others.get(name) and these.get(name) is not None:
            words.append(form.format(these[name]))
    mine, theirs = these.get("extract", {}), others.get("extract", {})
    words += [f"extract.{n} {mine.get(n)}" for n in HARDWARE_SETTINGS if mine.get(n) != theirs.get(n)]
    return ", ".join(words)


def essence(request: dict[str, Any]) -> dict[str, Any]:
    """What of a request decides states, wherever and by whatever versions they are computed."""
    settings = {k: v for k, v in request.get("extract", {}).items() if k not in HARDWARE_SETTINGS}
    return {**{k: v for k, v in request.items() if k not in HARDWARE}, "extract": settings}


def _model_parts(before: Any, now: Any) -> list[str]:
    before, now = (m if isinstance(m, dict) else {} for m in (before, now))
    names = {"config": "configuration", "weights": "weights", "revision": "revision", "id": "id"}
    return [names.get(k, k.replace("_", " ")) for k in sorted({*before, *now}) if before.get(k) != now.get(k)]


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 2 and value == list(range(value[0], value[-1] + 1)):
        return f"{value[0]} to {value[-1]}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def recorded(attributes: dict[str, Any]) -> list[Recipe]:
    """The recipes in a group's attributes; empty for a group of an older version."""
    return [Recipe(r["request"], r["numerics"], r["policy"]) for r in attributes.get(ATTRIBUTE, [])]


def recover(
    request: dict[str, Any], policy: dict[str, Any], model: dict[str, Any], earlier_versions: dict[str, str]
) -> Recipe | None:
    """The recipe of a group of an older version, which recorded a digest of its request only.

    model: attributes of the model's group. earlier_versions: those in the manifest of the last run. Tries the request
    with the versions, device and cores that are known from before; None where none of them gives the digest.
    """
    numerics = model.get("numerics")
    if not isinstance(numerics, dict) or "block_sentences" not in numerics:
        return None
    for candidate in _candidates(request, numerics, earlier_versions):
        if digest(candidate) == model.get("numerics_for"):
            return Recipe(candidate, numerics, policy)
    return None


def _candidates(
    request: dict[str, Any], numerics: dict[str, Any], earlier_versions: dict[str, str]
) -> Iterator[dict[str, Any]]:
    versions = [v for v in (request["versions"], earlier_versions) if v]
    versions += [{**v, "torch": numerics["torch"]} for v in versions if "torch" in numerics]
    devices = dict.fromkeys([request["device"], numerics.get("device"), numerics.get("instructions")])
    cores = dict.fromkeys([request["cores"], numerics.get("threads"), None])
    requests = [as_recorded(request, {})] + [request] * any(part in request["model"] for part in LATER_PARTS)
    for asked, version, device, threads in product(requests, versions, devices, cores):
        changed = {**asked, "versions": version, "device": device, "cores": threads}
        yield changed
        # Older versions did not record how a model is spread over devices.
        yield {k: v for k, v in changed.items() if k != "device_map"}
