"""What streaming takes is planned before it starts: layers that stay, batches that wait, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drillcore.backends.source import locate
from drillcore.backends.transformers.streamed import choice
from drillcore.backends.transformers.streamed.choice import Choice, Need, choose, need_of
from drillcore.backends.transformers.streamed.outlook import _peaks
from drillcore.backends.transformers.streamed.sweep import LEFT, MASK_WIDTH, Room
from drillcore.job.extract import Extract
from drillcore.job.model import Model

NEED = Need(weights=100, layer=10, rest=5, batch=5, free=90)
ROOM = Room(1_256_000, 10**9, 1000, (30, 500), torch.float32)
EACH = 1000 + MASK_WIDTH * 4


def test_a_sweep_takes_what_the_device_holds_and_more_where_the_host_holds_it():
    assert ROOM.nodes == 1000 and replace(ROOM, host_bytes=1000).nodes == 1000
    assert replace(ROOM, host_bytes=3 * 1_256_000).nodes == 3000
    # What is left of each on the device fills that in the end.
    assert replace(ROOM, host_bytes=2**40).nodes == 1000 / LEFT


def test_the_peaks_of_device_and_host():
    fits = _peaks(NEED, 0, ROOM, 500, 2.0, on_cuda=True)
    assert (fits.sweeps, fits.nodes_per_sweep, fits.scratch, fits.host) == (1, 1000, 1000, 20)
    assert fits.device == 5 + 2 * 10 + 5 + 500 * EACH
    room = replace(ROOM, host_bytes=2 * 1_256_000)
    waits = _peaks(NEED, 30, room, 4000, 2.0, on_cuda=True)
    assert (waits.sweeps, waits.nodes_per_sweep, waits.scratch) == (2, 2000, 4000)
    assert waits.host == 20 + 2000 * EACH and waits.device == 5 + 2 * 10 + 30 + 5 + 2000 * EACH * LEFT
    # The self-check converts one layer at a time to float32.
    half = _peaks(NEED, 0, replace(ROOM, dtype=torch.bfloat16), 500, 2.0, on_cuda=False)
    assert half.device == 5 + 3 * 10 + 5 + 500 * (1000 + MASK_WIDTH * 2) and half.host == 0


def test_batches_leave_the_device_only_where_it_does_not_hold_them():
    assert ROOM.holds(1_256_000, 9, in_host=False) and not ROOM.holds(1_256_001, 9, in_host=False)
    assert not ROOM.holds(1_256_001, 9, in_host=True)
    room = replace(ROOM, host_bytes=2**40)
    assert room.holds(1_256_001, 9, in_host=True) and not room.holds(1_256_001, 3, in_host=True)
    assert not room.holds(int(1_256_001 / LEFT), 1000, in_host=True)


@pytest.mark.parametrize("staying", [0, 1, 2])
def test_auto_says_how_many_layers_stay(staying, models, monkeypatch):
    source, extract = locate(Model(id=str(models("llama", hidden_size=512))), Path("/")), Extract(weights="auto")
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: 0)
    need = need_of(source, extract)
    free = need.streamed + 2 * staying * need.layer
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: free)
    # What these tiny layers take is less than what is left beside them where all of them fit.
    monkeypatch.setattr(Need, "fits", False)
    found = choose(source, extract)
    assert found.is_streamed and found.staying == staying
    assert ("stay once read" in found.notes[0]) == (staying > 0)
    assert (f"; {staying} layer" in found.notes[0]) == (staying > 0)
    monkeypatch.setattr(Need, "fits", True)
    assert choose(source, extract) == Choice(is_streamed=False)
    assert choose(source, Extract(weights="streamed")) == Choice(is_streamed=True)
