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
# Two processes test at once with all cores each: threads that wait for others by spinning keep these from their core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
            made[key] = tiny_model(
                folder / (key if len(key) < 100 else f"{architecture}-{len(made)}"), architecture, **changes
            )
        return made[key]

    return get


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI, name every skip that is not in the committed list."""
    for line in _unlisted(terminalreporter.config):
        terminalreporter.write_line(f"NOT ALLOWED TO SKIP: {line}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, fail on a skip that is not in the committed list."""
    if _unlisted(session.config) and session.exitstatus == 0:
        session.exitstatus = 1


def _unlisted(config: pytest.Config) -> list[str]:
    if not os.environ.get("CI"):
        return []
    lines = (Path(__file__).parent / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
    allowed = tuple(line.split("#")[0].strip() for line in lines if line.split("#")[0].strip())
    reporter = config.pluginmanager.getplugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    return [r.nodeid for r in skipped if not r.nodeid.startswith(allowed)]
