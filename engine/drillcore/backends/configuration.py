"""A model's files before anything reads them: of which kind they are, and what its configuration asks to be built.

A configuration decides how many layers, experts and labels are made as Python objects. Numbers that no model has are
refused here, from the JSON alone; `bounded_building` stops whatever is beyond bounds in another way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drillcore.backends.weight_files import read_headers, weight_files
from drillcore.errors import ModelError
from drillcore.job.choices import did_you_mean
from drillcore.job.model import Model
from drillcore.system.bounds import MOST_BYTES, BeyondBounds, bounded, problem_with, read_json
from drillcore.system.quiet import quiet_transformers

CONFIG = "config.json"
# What transformers may read in a model's folder.
READ = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".py")
# Names of what becomes one object each, names of widths, and those that look alike but are lengths in tokens.
COUNT = re.compile(r"(layers?|blocks|stages|depths?|experts|codebooks|types|pattern|stacks?|repeats?)$")
LABELS = re.compile(r"labels$")
WIDTH = re.compile(r"(^|_)(dim|size|width|rank|heads?|groups|channels|kernel|embd|inner|model|state)$")
LENGTH = re.compile(r"window|chunk|max_|length|batch")
LAYERS = re.compile(r"layers?$")
# The deepest known model has 1,000 layers, the widest mixture 2,048 experts, the widest vocabulary a million tokens.
MOST_LAYERS, MOST_COUNT, MOST_LABELS, MOST_WIDTH = 1000, 10_000, 100_000, 2**24
# Up to here no file is opened to see whether it holds so many layers.
USUAL_LAYERS = 200
# Processor time and memory for a model without values; the largest known take a tenth of either.
SECONDS, BYTES = 60.0, 2 * 2**30
HINT = "Take the config.json that was saved with the weights."
# Characters of another library's message that are repeated.
SAID = 300


def refuse_odd_files(model: str, folder: Path) -> None:
    """Raise ModelError for a file that could not be read, or not to its end: a pipe, a device, a link to nothing.

    model: its id, for the message.
    """
    try:
        found = sorted([*folder.iterdir(), *(folder / "additional_chat_templates").glob("*")])
    except OSError as error:
        raise ModelError(
            f"model {model}: {folder} cannot be read: {error.strerror}", hint="Check the folder."
        ) from error
    for path in found:
        if path.suffix in READ:
            problem = problem_with(path, None if path.suffix == ".safetensors" else MOST_BYTES)
            if problem:
                raise ModelError(f"model {model}: {path} {problem}", hint="Put the file itself there, or take it away.")


def read_raw(model: str, folder: Path) -> dict[str, Any]:
    """The configuration as it is written; raises ModelError where it is no JSON object or asks for too much."""
    path = folder / CONFIG
    try:
        config = read_json(path)
    except OSError as error:
        raise ModelError(f"model {model}: {path} {error}", hint=HINT) from error
    except ValueError as error:
        raise ModelError(f"model {model}: {path} is not a valid JSON file: {error}", hint=HINT) from error
    if not isinstance(config, dict):
        raise ModelError(f"model {model}: {path} is not a JSON object", hint=HINT)
    _refuse_shapes(model, config)
    return config


def _refuse_shapes(model: str, config: dict[str, Any]) -> None:
    """Raise ModelError for a value of another kind than transformers and drillcore take there."""
    named, code = config.get("architectures"), config.get("auto_map")
    weights = config.get("transformers_weights")
    wrong = {
        "architectures": named is not None and not (isinstance(named, list) and all(isinstance(n, str) for n in named)),
        "auto_map": code is not None and not isinstance(code, dict),
        "transformers_weights": weights is not None
        and not (isinstance(weights, str) and weights and Path(weights).name == weights),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            wanted = {"architectures": "a list of names", "auto_map": "an object"}.get(name, "the name of a file there")
            raise ModelError(f"model {model}: {name} in its {CONFIG} must be {wanted}", hint=HINT)


def refuse_beyond(model: str, config: dict[str, Any], folder: Path | None) -> None:
    """Raise ModelError where a configuration asks for more layers, experts, labels or width than a model can have.

    folder: of its weights, which must hold as many tensors as it has layers; None where they are not to be read.
    """
    try:
        numbers = list(_numbers(config, ""))
    except RecursionError:
        raise ModelError(f"model {model}: its {CONFIG} is nested too deeply", hint=HINT) from None
    for place, number in numbers:
        most = _most(place.rpartition(".")[2])
        if most is not None and number > most:
            raise ModelError(
                f"model {model}: its {CONFIG} says {place}: {number:,}, more than any model has ({most:,} at most)",
                hint=HINT,
            )
    deepest = max(((n, place) for place, n in numbers if LAYERS.search(place)), default=(0, ""))
    if folder is None or deepest[0] <= USUAL_LAYERS:
        return
    tensors = len(read_headers(model, weight_files(model, folder, config.get("transformers_weights"))))
    if deepest[0] > tensors:
        raise ModelError(
            f"model {model}: its {CONFIG} says {deepest[1]}: {deepest[0]:,}, and its files hold {tensors:,} tensors: "
            "config.json has more layers than the files",
            hint=HINT,
        )


def _most(name: str) -> int | None:
    """The largest number that an entry of this name may have, None where it is not bounded."""
    if LABELS.search(name):
        return MOST_LABELS
    if COUNT.search(name):
        return MOST_LAYERS if LAYERS.search(name) else MOST_COUNT
    return MOST_WIDTH if WIDTH.search(name) and not LENGTH.search(name) else None


def _numbers(value: object, place: str) -> Iterator[tuple[str, int]]:
    """Every whole number below a value, with the names that lead to it; those of a list have the list's."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, place)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, float) and value.is_integer():
        yield place, int(value)


@contextmanager
def bounded_building(model: str) -> Iterator[None]:
    """Raise ModelError where building something from a model's configuration goes beyond bounds of time or memory."""
    import torch  # noqa: F401, its libraries would count as memory of what is built

    try:
        with bounded(SECONDS, BYTES):
            yield
    except BeyondBounds as beyond:
        raise ModelError(f"model {model}: building it from {CONFIG} {beyond}", hint=HINT) from None


def read_config(model: Model, location: str) -> Any:
    """The configuration of a model, by transformers; raises ModelError where it cannot be had, with the remedy."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from transformers import AutoConfig, PretrainedConfig

    try:
        with quiet_transformers():
            if not Path(location).is_dir():
                raw, _ = PretrainedConfig.get_config_dict(location, revision=model.revision or "main")
                refuse_beyond(model.id, raw, None)
            file = {} if model.gguf_file is None else {"gguf_file": model.gguf_file}
            return AutoConfig.from_pretrained(
                location, revision=model.revision or "main", trust_remote_code=model.trust_remote_code, **file
            )
    except ModelError:
        raise
    except Exception as error:  # transformers wraps the hub's errors in OSError and ValueError
        causes = [error, error.__cause__, getattr(error.__cause__, "__cause__", None)]
        if any(isinstance(c, GatedRepoError) for c in causes):
            page = f"https://huggingface.co/{model.id}"
            message, hint = "is gated", f"Accept its licence at {page}, then set HF_TOKEN to a token that may read it."
        elif any(isinstance(c, RevisionNotFoundError) for c in causes):
            message, hint = f"has no revision {model.revision}", "Name a branch, tag or commit of the repository."
        elif any(isinstance(c, RepositoryNotFoundError) for c in causes):
            message, hint = (
                f"is not on the hub{_like_cached(model)}",
                ("Check the spelling; for a private model set HF_TOKEN; a folder's name begins with ./ or /."),
            )
        elif "trust_remote_code" in str(error):
            message, hint = "runs code of its own", "If you trust it, set trust_remote_code: true for it in the job."
        elif isinstance(error, OSError) and not Path(location).is_dir():
            offline = os.environ.get("HF_HUB_OFFLINE") in ("1", "true", "True", "ON", "on")
            message = "is not in the local cache" + (" and HF_HUB_OFFLINE is set" if offline else "")
            message += ("" if offline else ", and the hub could not be asked") + _like_cached(model)
            hint = "Check the spelling and the connection, or download it elsewhere and name its directory."
        else:
            message, hint = f"cannot be read: {' '.join(str(error).split())[:SAID]}", "Check its config.json."
        raise ModelError(f"model {model.id} {message}", hint=hint) from error


def _like_cached(model: Model) -> str:
    """The end of a message that names the model in the hub's cache whose id is most like this one, if any is."""
    from huggingface_hub.constants import HF_HUB_CACHE

    known = [path.name.removeprefix("models--").replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*")]
    return did_you_mean(model.id, sorted(known), cutoff=0.8)
