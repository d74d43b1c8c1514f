"""Runs `drillcore` commands as processes that can be killed; see `forge`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

FORGE = Path(__file__).with_name("forge.py")


@dataclass
class Command:
    """A command under way, the leader of its own process group."""

    forge: Forge
    pid: int
    folder: Path
    name: str
    status: int | None = None

    def wait(self, seconds: float = 120.0) -> int:
        """Exit status, negative where a signal ended it."""
        if self.status is None:
            self.status = self.forge.ask({"wait": self.pid, "seconds": seconds})["status"]
            assert self.status is not None, f"still running after {seconds} s: {self.err}"
        return self.status

    def ended_within(self, seconds: float) -> bool:
        """Whether it ended by itself meanwhile."""
        if self.status is None:
            self.status = self.forge.ask({"wait": self.pid, "seconds": seconds})["status"]
        return self.status is not None

    def send(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the whole group and wait for the end."""
        if self.status is None:
            os.killpg(self.pid, number)
        return self.wait()

    def wait_for(self, what: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something has happened while the command runs."""
        until = time.monotonic() + seconds
        while not what():
            assert not self.ended_within(0.004), f"ended with {self.status} before it happened: {self.err}"
            assert time.monotonic() < until, "did not happen"

    def is_ready(self) -> bool:
        """Whether Python that the command ran beforehand has touched READY."""
        return (self.folder / f"{self.name}.ready").exists()

    @property
    def out(self) -> str:
        return (self.folder / f"{self.name}.out").read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / f"{self.name}.err").read_text(encoding="utf-8", errors="replace")


@dataclass
class Forge:
    """Starts commands. `env`: added to the environment of each."""

    model: Path
    folder: Path
    env: dict[str, str]
    _numbers: count = field(default_factory=count)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FORGE), str(self.model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, **self.env},
        )  # fmt: skip
        assert json.loads(self._process.stdout.readline())["ready"]

    def ask(self, asked: dict) -> dict:
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *argv: str | Path, cwd: Path, first: str = "", env: dict[str, str] | None = None) -> Command:
        """Start a command; `first` is Python that its process runs beforehand."""
        name = f"{next(self._numbers):04}"
        asked = {
            "argv": [str(a) for a in argv], "cwd": str(cwd), "first": first, "env": env or {},
            **{kind: str(self.folder / f"{name}.{kind}") for kind in ("out", "err", "ready")},
        }  # fmt: skip
        return Command(self, self.ask(asked)["pid"], self.folder, name)

    def run(self, *argv: str | Path, cwd: Path, first: str = "", env: dict[str, str] | None = None) -> Command:
        """Run a command to its end."""
        command = self.start(*argv, cwd=cwd, first=first, env=env)
        command.wait()
        return command

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
