"""Groups of a store are made in threads beside the run: nothing else makes them at the same moment."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from drillcore.cli.verify import verify_lines
from drillcore.runtime.stages.extract import stage
from drillcore.store.writer import StoreWriter
from support.audited import Audited


@pytest.fixture
def work(tmp_path, models, seed):
    made = Audited(tmp_path, shutil.copytree(models(), tmp_path / "model"), seed)
    made.texts("d", 40)
    made.texts("e", 20)
    return made


@pytest.mark.parametrize("grows", [False, True])
def test_one_thread_makes_a_group(work, monkeypatch, grows):
    if grows:
        work.run()
        work.texts("d", 60)
    making, made, elsewhere = {}, set(), []
    fit_group, dataset = stage.fit_group, StoreWriter.dataset

    def slowly(context, standing):
        name = standing.pair.dataset.name
        making[name] = threading.get_ident()
        time.sleep(0.5)
        writer = fit_group(context, standing)
        made.add(name)
        return writer

    def watched(self, model, name):
        if name in making and name not in made and making[name] != threading.get_ident():
            elsewhere.append(name)
        return dataset(self, model, name)

    monkeypatch.setattr(stage, "fit_group", slowly)
    monkeypatch.setattr(StoreWriter, "dataset", watched)
    work.run()
    assert made and not elsewhere
    assert list(verify_lines(str(work.store)))[-1].endswith(": whole")
