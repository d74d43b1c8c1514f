"""Fixtures for tests on real vLLM, and a skip where it is missing.

A module that uses them says `pytest_plugins = ["support.vllm_fixtures"]` and marks itself with
`pytest.mark.usefixtures("installed_vllm")`. Engines take seconds to start, so the tests of a module share them.
"""

from __future__ import annotations

import importlib.util

import pytest

from conftest import require
from support.vllm import SIZES, Opened, workers


@pytest.fixture(scope="module")
def installed_vllm():
    if importlib.util.find_spec("vllm") is None:
        require("vllm", "make test-vllm builds its environment")


@pytest.fixture(scope="module")
def tiny(installed_vllm, models):
    return lambda architecture: models(architecture, **SIZES[architecture])


@pytest.fixture(scope="module")
def engines():
    backends = Opened()
    yield backends
    backends.close()
    assert not workers()


@pytest.fixture(scope="module")
def plain_model():
    loaded = {}

    def get(folder):
        from transformers import AutoModelForCausalLM

        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        return loaded[folder]

    return get


@pytest.fixture
def leaves_nothing():
    """No process of the test's own is left behind."""
    before = set(workers())
    yield lambda: set(workers()) - before
    assert not set(workers()) - before
