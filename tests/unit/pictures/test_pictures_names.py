"""Names of picture files: two pictures of a job never have the same."""

from __future__ import annotations

import itertools
import secrets

import numpy as np

from drillcore.job.common import check_name
from drillcore.runtime.stages.render import names

PARTS = ["a", "b", "c", "--", "-", "curves", "all-datasets", "all-models", "--curves", "all-models--a"]


def names_of(models: list[str], datasets: list[str], label: str = "") -> list[str]:
    """The names of all pictures that a job of these models and datasets has."""
    return [
        *(names.of_dataset(m, d, label) for m in models for d in datasets),
        *(f(m, label) for m in models for f in (names.of_all_datasets, names.curves_of_model)),
        *(f(d, label) for d in datasets for f in (names.of_all_models, names.curves_of_all_models)),
    ]


def allowed(name: str) -> bool:
    try:
        return check_name(name) == name
    except ValueError:
        return False


def test_no_two_pictures_have_the_same_name() -> None:
    made = ["".join(parts) for n in (1, 2, 3) for parts in itertools.product(PARTS, repeat=n)]
    possible = sorted({name for name in made if allowed(name)})
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for chosen in ([*possible[:300]], *([str(n) for n in rng.choice(possible, 30, replace=False)] for _ in range(5))):
        datasets = [*chosen, *(f"{name}~mean" for name in chosen)]
        found = names_of(chosen, datasets)
        assert len(found) == len(set(found))
    assert names.of_dataset("my-model", "cities") == "my-model--cities"


def test_pictures_of_further_labels_are_told_from_all_others() -> None:
    made = ["".join(parts) for n in (1, 2) for parts in itertools.product(PARTS, repeat=n)]
    models = sorted({name for name in made if allowed(name)})[:40]
    datasets = [*models, *(f"{name}~mean" for name in models)]
    main = names_of(models, datasets)
    # A label's name is a field of the rows, and begins with no ~.
    found = [
        *main,
        *(name for label in ("a", "--a", "a~", "a~~b", "curves") for name in names_of(models, datasets, label)),
    ]
    assert len(found) == len(set(found))
    assert [names.main_of(name) for name in found] == [""] * len(main) + main * 5
