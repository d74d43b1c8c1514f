"""Rows of a sweep come back from the disk as they were written, or an error says that they could not be."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from drillcore.backends.transformers.streamed.scratch import ON_THEIR_WAY, Scratch
from drillcore.errors import RunError


def test_rows_that_come_later_are_written_in_their_places():
    """As those of a GPU do: more than are on their way at a time, and none before it has come."""
    scratch, count = Scratch(), 5 * ON_THEIR_WAY
    part = scratch.part([3], (count, 4), torch.bfloat16)
    rows = torch.randn(count, 3, 4).to(torch.bfloat16)
    (offset, _, _), come = part._arrays[0], torch.zeros_like(rows)

    def arrive(number):
        come[number] = rows[number]

    for number in range(count):
        place = offset + number * 3 * 4 * 2
        scratch.write_when(lambda n=number: arrive(n), come[number], place)
    assert torch.equal(part.take()[0], rows.transpose(0, 1))


def test_what_cannot_be_written_later_is_told_of_before_rows_are_given(monkeypatch):
    scratch = Scratch()
    part = scratch.part([1], (2, 4), torch.float32)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    scratch.write_when(lambda: None, torch.ones(1, 4), 0)
    with pytest.raises(RunError, match=r"scratch file of a sweep.*No space left on device"):
        part.take()


def test_what_comes_in_the_background_does_not_wait_for_the_caller():
    scratch, gate = Scratch(), threading.Event()
    scratch.part([1], (1, 4), torch.float32)
    scratch.write_when(gate.wait, torch.ones(1, 4), 0)
    gate.set()
    scratch.settle()
    found = torch.zeros(1, 4)
    scratch.read(found, 0)
    assert found.tolist() == [[1.0] * 4]
