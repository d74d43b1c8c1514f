"""Fixtures of tests that open reports in a browser: `pytest_plugins = ["support.report_fixtures"]`."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import require
from drillcore.pictures.report.write import write_report
from support.report_pages import READY_MS, Visit, example

# Playwright gives the browser an empty --user-data-dir of its own.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require("browser", "the Python package playwright is missing")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        require("browser", "Chromium is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens a report in a page of its own; at the end no page may have had a problem or asked the network."""
    visits: list[Visit] = []

    def go(path: Path, **options: Any) -> Visit:
        page = browser.new_page(**{"viewport": {"width": 1400, "height": 1000}, "reduced_motion": "reduce", **options})
        opened = Visit(page)
        page.on("console", lambda m: opened.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: opened.problems.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=READY_MS)
        visits.append(opened)
        return opened

    yield go
    for opened in visits:
        # The page's own images are data: addresses, for which nothing is fetched.
        requested = [url for url in opened.requests[1:] if not url.startswith("data:")]
        assert not opened.problems and not requested, (opened.problems, requested)
        assert opened.page.evaluate("window.hacked") is None
        assert opened.page.locator("#problem").is_hidden()
        opened.page.close()


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    seed = int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32)))
    print(f"DRILLCORE_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator) -> Any:
    report, points = example(rng, 50, 32, models=2)
    return write_report(report, tmp_path_factory.mktemp("report") / "report.html"), report, points, rng


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator) -> Any:
    report, points = example(rng, 100_000, 31)
    path = write_report(report, tmp_path_factory.mktemp("report") / "report.html")
    assert path.stat().st_size < 25_000_000
    return path, report, points, rng
