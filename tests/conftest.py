"""Fixtures that all tests share: printed seeds, tiny models, a cache of the session's own, and strict skips."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from support.tiny import tiny_model


def require(part: str, reason: str) -> None:
    """Skip a test whose part this machine lacks; fail where DRILLCORE_REQUIRE names the part."""
    if part in os.environ.get("DRILLCORE_REQUIRE", "").split(","):
        pytest.fail(f"{part} is required here: {reason}")
    pytest.skip(f"{part}: {reason}")


@pytest.fixture
def seed() -> int:
    """A fresh seed, printed so that a failure can be repeated: DRILLCORE_SEED=..."""
    found = int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32)))
    print(f"DRILLCORE_SEED={found}")
    return found


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory):
    """Directories of tiny random models, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def get(architecture: str = "llama", **changes) -> Path:
        key = "-".join([architecture, *(f"{k}{v}" for k, v in sorted(changes.items()))])
        if key not in made:
            made[key] = tiny_model(folder / key, architecture, **changes)
        return made[key]

    return get
