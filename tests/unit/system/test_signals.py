"""A program that calls drillcore keeps its signals; the command line ends on SIGTERM (`test_crash` asks it to)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import drillcore
from drillcore.runtime import runner
from drillcore.system.signals import stoppable

SENTENCES = ["the river", "a city"]


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Signals that the program's own handler got."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def asked_to_stop(monkeypatch: pytest.MonkeyPatch):
    """Sends a signal to this process while the extract stage begins."""

    def send(number: int) -> None:
        load = runner.load_stage

        def load_stage(name: str):
            signal.raise_signal(number)
            return load(name)

        monkeypatch.setattr(runner, "load_stage", load_stage)

    return send


def test_the_program_gets_its_sigterm_and_the_extraction_goes_on(models, received, asked_to_stop):
    asked_to_stop(signal.SIGTERM)
    states = drillcore.extract(str(models()), SENTENCES)
    assert states.hidden_states.shape[0] == 2 and received == [signal.SIGTERM]


def test_an_interrupt_is_not_swallowed_as_an_ordinary_error(models, asked_to_stop):
    asked_to_stop(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            try:
                drillcore.extract(str(models()), SENTENCES)
            except Exception:  # as a loop over many files does
                continue


def test_a_thread_may_extract(models, received):
    found = []
    thread = threading.Thread(target=lambda: found.append(drillcore.extract(str(models()), SENTENCES)))
    thread.start()
    while thread.is_alive():
        os.kill(os.getpid(), signal.SIGTERM)
        thread.join(0.05)
    assert found[0].hidden_states.shape[0] == 2 and set(received) == {signal.SIGTERM}


def test_sigterm_ends_a_program_that_does_not_handle_it(models, tmp_path: Path):
    script = f"""
import drillcore, signal
from drillcore.runtime import runner
runner.load_stage = lambda name: signal.raise_signal(signal.SIGTERM)
try:
    drillcore.extract({json.dumps(str(models()))}, ["the river"])
finally:
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM and "went on" not in done.stdout


def test_the_handler_of_before_comes_back(received):
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_a_destructor_drops_comes_again(number):
    class Slow:
        """Interrupted while it is taken away, where Python drops what is raised."""

        def __del__(self) -> None:
            signal.raise_signal(number)

    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), stoppable():
        Slow()
        threading.Event().wait(20)
    assert sys.unraisablehook is before


def test_nothing_is_sent_once_the_command_has_ended(received):
    class Slow:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with stoppable():
        Slow()
    threading.Event().wait(0.2)
    assert received == []
