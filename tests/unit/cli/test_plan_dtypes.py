"""`drillcore plan` and `doctor` say what bfloat16 would give on a CPU that multiplies faster in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml

from drillcore.api import doctor, planning
from drillcore.api import estimates as timing
from drillcore.backends.rates import matrix_rate


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What other tests' runs took is not known here: every model is timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def estimates(folder, model, **extract) -> list[timing.Estimate]:
    (folder / "texts.txt").write_text("one sentence\none sentence more\nanother\n", encoding="utf-8")
    job = {"models": [str(model)], "datasets": {"few": "texts.txt", "more": "texts.txt"}, "extract": extract}
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return list(planning.plan(folder / "job.yaml").groups)


@pytest.mark.parametrize(
    ("gains", "dtype", "timed"),
    [(True, "auto", True), (True, "float32", True), (True, "bfloat16", False), (False, "auto", False)],
)
def test_bfloat16_is_timed_where_it_may_gain(tmp_path, models, monkeypatch, gains, dtype, timed):
    monkeypatch.setattr(timing, "gains_by_bfloat16", lambda: gains)
    found = estimates(tmp_path, models("llama"), dtype=dtype)
    assert [e.dataset for e in found] == ["few", "more"] and all(e.seconds > 0 for e in found)
    assert [e.bfloat16_seconds is not None for e in found] == [timed, timed]


def test_the_gain_is_told_once_for_each_model(tmp_path, models, monkeypatch):
    monkeypatch.setattr(timing, "gains_by_bfloat16", lambda: False)
    found = [replace(e, seconds=10.0, bfloat16_seconds=4.0) for e in estimates(tmp_path, models("llama"))]
    (line,) = planning.faster_in_bfloat16(found)
    assert line.startswith(f"{found[0].model}: 8 s in bfloat16, 2.5 times as fast")
    assert not list(planning.faster_in_bfloat16([replace(e, bfloat16_seconds=11.0) for e in found]))
    assert not list(planning.faster_in_bfloat16([replace(e, bfloat16_seconds=None) for e in found]))


@pytest.mark.parametrize(("gain", "present", "said"), [(2.04, True, "2.0 times as fast"), (0.9, False, "exact")])
def test_doctor_tells_the_gain(monkeypatch, gain, present, said):
    monkeypatch.setattr(doctor, "bfloat16_gain", lambda device: gain)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    part = doctor._bfloat16()
    assert part.present is present and said in part.detail + part.remedy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rates_are_those_of_products(dtype):
    assert 1e8 < matrix_rate("cpu", dtype, 2) < 1e15
