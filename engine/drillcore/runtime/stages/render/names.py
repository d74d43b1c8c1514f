"""Names of picture files: no two pictures of a job have the same, whatever its models and datasets are called."""

from __future__ import annotations

import re

# What stands in the place of a dataset or model in the names of other pictures.
RESERVED = ("curves", "all-datasets")
ALL_MODELS = "all-models"


def of_dataset(model: str, dataset: str) -> str:
    """Name of a model's grid of one dataset.

    `--` stands between the two, so that in a dataset's name it is written `-~-`; `~` stands after a name that other
    pictures use. Neither can be part of a name.

    >>> of_dataset("a--b", "c"), of_dataset("a", "b--c"), of_dataset("m", "curves"), of_dataset("all-models", "d")
    ('a--b--c', 'a--b-~-c', 'm--curves~', 'all-models~--d')
    """
    return f"{_model(model)}--{_dataset(dataset)}"


def of_all_datasets(model: str) -> str:
    """Name of a model's grid of all datasets."""
    return f"{_model(model)}--all-datasets"


def of_all_models(dataset: str) -> str:
    """Name of a dataset's grid of all models."""
    return f"{ALL_MODELS}--{_dataset(dataset)}"


def curves_of_model(model: str) -> str:
    """Name of a model's curves."""
    return f"{_model(model)}--curves"


def curves_of_all_models(dataset: str) -> str:
    """Name of a dataset's curves of all models."""
    return f"{of_all_models(dataset)}--curves"


def _dataset(name: str) -> str:
    written = re.sub("-(?=-)", "-~", name)
    return f"{written}~" if name in RESERVED else written


def _model(name: str) -> str:
    return f"{name}~" if name == ALL_MODELS or name.startswith(f"{ALL_MODELS}--") else name
