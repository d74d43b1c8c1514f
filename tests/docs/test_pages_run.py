"""Every block of README.md and docs/ is run, or listed with the reason why not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from conftest import require
from support.sessions import DEMO, Session, furnish, is_there
from support.tiny import tiny_model
from tools.pages import ROOT, blocks_of, pages

WITH_BLOCKS = [page for page in pages() if blocks_of(page)]
NEEDS = [
    (page, need) for page in WITH_BLOCKS for need in sorted({b.marks.get("needs", "") for b in blocks_of(page)} - {""})
]
# Layers of the demo model, so that a page may name them; all else is tiny.
SHAPE = {"num_hidden_layers": 30}


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """A tiny model that is called, and has as many layers, as the demo model."""
    return tiny_model(tmp_path_factory.mktemp("stand-in") / DEMO.replace("/", "--"), **SHAPE)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory, stand_in):
    """Runs jobs/demo.yaml once, with the stand-in and few permutations, when a page first asks for its store."""
    folder = tmp_path_factory.mktemp("demo")

    def get():
        if not (folder / "jobs").exists():
            shutil.copytree(ROOT / "jobs", folder / "jobs")
            job = folder / "jobs" / "demo.yaml"
            job.write_text(job.read_text(encoding="utf-8").replace(DEMO, str(stand_in)), encoding="utf-8")
            few = [f"datasets.{i}.limit=12" for i in range(3)]
            fast = ["measure.permutations=9", "project.method=pca", "run.audit=0", "extract.threads=1", *few]
            given = [word for setting in fast for word in ("--set", setting)]
            subprocess.run([sys.executable, "-m", "drillcore", "run", str(job), *given], check=True)
        return folder / "runs" / "demo.zarr"

    return get


@pytest.fixture
def run_page(tmp_path, models, demo_store, monkeypatch, tmp_path_factory):
    def run(page: str, model, wanted):
        """Run the blocks of a page that are wanted. What a block prints goes with the block."""
        furnish(tmp_path, (ROOT / page).read_text(encoding="utf-8"), models(), demo_store)
        monkeypatch.setenv("COLUMNS", "100")
        session = Session(tmp_path, model)
        ran = True
        for block in blocks_of(page):
            ran = ran if "output" in block.marks else wanted(block)
            if ran:
                session.run(block)

    return run


@pytest.mark.parametrize("page", WITH_BLOCKS)
@pytest.mark.timeout(1200)
def test_a_page_does_what_it_says(page, run_page, stand_in, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    run_page(page, stand_in, lambda block: not {"long", "needs"} & set(block.marks))


@pytest.mark.long
@pytest.mark.parametrize("page", WITH_BLOCKS)
@pytest.mark.timeout(3600)
def test_a_page_does_what_it_says_to_the_letter(page, run_page):
    """With the demo model itself, slow blocks too; what a page says is printed must be printed."""
    run_page(page, None, lambda block: "needs" not in block.marks)


@pytest.mark.parametrize(("page", "need"), NEEDS)
@pytest.mark.timeout(1200)
def test_a_page_does_what_it_says_where_there_is(page, need, run_page, stand_in, monkeypatch, tmp_path_factory):
    if not is_there(need):
        require(need, "not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    run_page(page, stand_in, lambda block: "long" not in block.marks and block.marks.get("needs", need) == need)
