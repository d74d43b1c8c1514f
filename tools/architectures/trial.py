"""One architecture through the product: a tiny random model on disk, loaded, checked and run as a job would.

Every layer of every sentence is compared with the same model on that sentence alone, float32, seen by plain hooks.

Shape legend: N sentences, K layers, H hidden size.
"""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.architectures.tiny import VOCAB, random_model, tiny_config

# Around the windows and chunks of 16 tokens that the tiny models have, and of several of them.
LENGTHS = (1, 2, 5, 15, 16, 17, 20, 31, 33, 47, 60)
# Rounding of packed against single sentences in float32 stays below this.
BOUND = 1e-4


@dataclass(frozen=True)
class Outcome:
    """What the product did with an architecture.

    status: `packed`, `padded`, another layout, `refused`, `wrong`, `traceback` or `not tried`. layers: those that were
    asked for. error: worst relative error of any layer and sentence. prediction: whether its logits were proved.
    """

    kind: str
    status: str
    layers: str = "all"
    error: float = float("nan")
    prediction: bool = False
    reason: str = ""


def try_architecture(kind: str, with_images: bool, **changes: Any) -> Outcome:
    """Build the model, and give it to the product."""
    with tempfile.TemporaryDirectory(prefix="support-") as name:
        folder = Path(name)
        try:
            model = random_model(kind, with_images=with_images, **changes)
            model.save_pretrained(folder)
        except Exception as error:
            return _unbuilt(kind, folder, error)
        return try_model(kind, model, folder)


def try_model(kind: str, model: Any, folder: Path) -> Outcome:
    """Run the model that was saved in this folder; with all layers, else with those of `hf`."""
    from drillcore.errors import DrillcoreError

    outcome = Outcome(kind, "refused")
    for layers in ("all", "hf"):
        try:
            return run_layers(kind, model, folder, layers)
        except DrillcoreError as error:
            reason = _without_name(error, folder)
            outcome = Outcome(kind, "refused", reason=outcome.reason or reason)
            if "extract.layers: hf" not in error.hint:
                break
        except Exception:
            return Outcome(kind, "traceback", reason=traceback.format_exc().strip())
    return outcome


def run_layers(kind: str, model: Any, folder: Path, wanted: Any) -> Outcome:
    """Run the model that was saved in this folder, with these layers; raises what the product raises."""
    from drillcore.backends.base import all_states
    from drillcore.backends.layers import resolve_layers
    from drillcore.backends.source import locate
    from drillcore.backends.transformers.backend import TransformersBackend
    from drillcore.job.extract import Extract
    from drillcore.job.model import Model
    from drillcore.tokens.sequences import Sequences

    source = locate(Model(id=str(folder)), Path("/"))
    layers = resolve_layers(wanted, source.facts.num_layers)
    backend = TransformersBackend(source, Extract(threads=1, dtype="float32"), layers)
    sentences = Sequences.of(some_sentences(source.facts.vocab_size))
    prepared = backend.prepare(sentences, None)
    got_NKH = all_states(backend, sentences).astype(np.float64)
    want_NKH = np.stack([alone(model, backend._loaded, s, layers) for s in sentences])
    error = float(np.max(np.linalg.norm(got_NKH - want_NKH, axis=-1) / np.linalg.norm(want_NKH, axis=-1)))
    status = prepared.numerics["layout"] if error <= BOUND else "wrong"
    return Outcome(kind, status, str(wanted), error, not prepared.head_problem, "; ".join(prepared.notes))


def some_sentences(vocab_size: int, seed: int = 0) -> list[np.ndarray]:
    """Random token ids of many lengths; half of them branch off a common beginning."""
    draw = np.random.default_rng(seed)
    top = min(vocab_size, VOCAB) - 60
    trunk = draw.integers(3, top, max(LENGTHS))
    sentences = []
    for length in LENGTHS:
        sentences.append(draw.integers(3, top, length))
        cut = int(draw.integers(0, length))
        sentences.append(np.concatenate([trunk[:cut], draw.integers(3, top, length - cut)]))
    return [s.astype(np.int32) for s in sentences]


def alone(model: Any, loaded: Any, sentence: np.ndarray, layers: tuple[int, ...]) -> np.ndarray:
    """Last-token states [K, H] of one sentence alone, by hooks on the model that was never saved."""
    import torch

    from drillcore.backends.transformers.parts import find_parts

    parts = find_parts(model)
    num_layers = len(parts.layers)
    seen: dict[int, Any] = {}

    def keep(layer: int, value: Any) -> None:
        while not isinstance(value, torch.Tensor):
            value = value[0]
        seen[layer] = value.detach()[0, -1].double().numpy()

    handles = [
        parts.layers[0].register_forward_pre_hook(
            lambda module, args, named: keep(0, args or list(named.values())), with_kwargs=True
        ),
        *(m.register_forward_hook(lambda m, a, out, k=k: keep(k, out)) for k, m in enumerate(parts.layers, 1)),
    ]
    try:
        with torch.inference_mode():
            output = parts.decoder(input_ids=torch.as_tensor(sentence.astype(np.int64))[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    keep(num_layers + 1, output.last_hidden_state)
    for layer in range(1, num_layers + 1):
        # Text alone skips the layers that look at images.
        seen.setdefault(layer, seen[layer - 1])
    return np.stack([seen[k] for k in layers])


def _unbuilt(kind: str, folder: Path, error: Exception) -> Outcome:
    """What the product says of a configuration that no tiny model can be made of here."""
    from drillcore.backends.source import locate
    from drillcore.errors import DrillcoreError
    from drillcore.job.model import Model

    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    reason = f"no tiny model could be made here ({type(error).__name__}: {lines[0].strip()})"
    try:
        tiny_config(kind).save_pretrained(folder)
        locate(Model(id=str(folder), random_weights=True), Path("/"))
    except DrillcoreError as refusal:
        return Outcome(kind, "refused", reason=_without_name(refusal, folder))
    except Exception:
        return Outcome(kind, "not tried", reason=reason)
    return Outcome(kind, "not tried", reason=reason)


def _without_name(error: Exception, folder: Path) -> str:
    """A refusal without the model's name, which is that of a temporary folder."""
    return f"{error}".removeprefix(f"model {folder}: ").replace(f"model {folder}", "the model")
