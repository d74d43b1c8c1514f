"""Names of picture files: no two pictures of a job have the same, whatever its models and datasets are called."""

from __future__ import annotations

import re

# What stands in the place of a dataset or model in the names of other pictures.
RESERVED = ("curves", "all-datasets")
ALL_MODELS = "all-models"
# Between the name of a picture and the further label that it is of.
OF_LABEL = "~~"


def of_dataset(model: str, dataset: str, label: str = "") -> str:
    """Name of a model's grid of one dataset.

    `--` stands between the two, so that in a dataset's name it is written `-~-`; `~` stands after a name that other
    pictures use. Neither can be part of a name.

    >>> of_dataset("a--b", "c"), of_dataset("a", "b--c"), of_dataset("m", "curves"), of_dataset("all-models", "d")
    ('a--b--c', 'a--b-~-c', 'm--curves~', 'all-models~--d')

    Here and below, label is a further one of several, whose pictures end in `~~` and its field; "" is the main one.

    >>> of_dataset("m", "d", "kind")
    'm--d~~kind'
    """
    return _of(f"{_model(model)}--{_dataset(dataset)}", label)


def of_all_datasets(model: str, label: str = "") -> str:
    """Name of a model's grid of all datasets."""
    return _of(f"{_model(model)}--all-datasets", label)


def of_all_models(dataset: str, label: str = "") -> str:
    """Name of a dataset's grid of all models."""
    return _of(f"{ALL_MODELS}--{_dataset(dataset)}", label)


def curves_of_model(model: str, label: str = "") -> str:
    """Name of a model's curves."""
    return _of(f"{_model(model)}--curves", label)


def curves_of_all_models(dataset: str, label: str = "") -> str:
    """Name of a dataset's curves of all models."""
    return _of(f"{of_all_models(dataset)}--curves", label)


def main_of(name: str) -> str:
    """The name of the picture of the main label beside one of a further label; "" for any other.

    >>> main_of("m--d~~kind"), main_of("m--curves~~~kind"), main_of("m--d")
    ('m--d', 'm--curves~', '')
    """
    # No label begins with ~, and no other name holds it twice in a row.
    found = re.fullmatch(f"(.+?){OF_LABEL}(?!~).+", name, re.DOTALL)
    return found[1] if found else ""


def _of(name: str, label: str) -> str:
    return f"{name}{OF_LABEL}{label}" if label else name


def _dataset(name: str) -> str:
    written = re.sub("-(?=-)", "-~", name)
    return f"{written}~" if name in RESERVED else written


def _model(name: str) -> str:
    return f"{name}~" if name == ALL_MODELS or name.startswith(f"{ALL_MODELS}--") else name
