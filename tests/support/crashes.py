"""Kills a run again and again and checks what is left each time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.commands import Command
from support.runs import BLOCK, SHARD, Work


def slow_commits(seconds: float) -> str:
    """Python that makes every commit of a command wait beforehand, so that there is time to disturb it."""
    return f"""
import time
from drillcore.store.group import GroupWriter
commit = GroupWriter.commit
def slow(self, *arguments, **named):
    time.sleep({seconds})
    return commit(self, *arguments, **named)
GroupWriter.commit = slow
"""


class Lives:
    """One job run over and over: killed at random moments until it is done, then begun anew.

    After every kill: what was committed before is untouched, file for file, and what is committed is what an
    undisturbed run commits. After every end: the states and fingerprints are those of that run, byte for byte, and no
    more sentences were computed than those of blocks that were not wholly committed.
    """

    def __init__(
        self,
        new_work: Callable[..., Work],
        backend: str,
        draw: random.Random,
        count: int = 300,
        positions: Sequence[str] = ("last",),
    ) -> None:
        self._new, self._backend, self._draw, self._count = new_work, backend, draw, count
        self._positions = list(positions)
        self._seed = draw.getrandbits(32)
        whole = self._work("whole")
        started = time.monotonic()
        whole.finish()
        self._seconds = time.monotonic() - started
        self._want = whole.states()
        # Rows of a sentence, by group: no text has fewer than four tokens.
        self._groups = {f"m/d~{name}".removesuffix("~last"): 4 if name == "last-4" else 1 for name in positions}
        assert len(whole.committed()) == sum(-(-count * rows // SHARD) for rows in self._groups.values())
        self.kills = self.ends = self.num_lives = 0
        self.committed_when_killed: list[int] = []

    def __str__(self) -> str:
        return (
            f"{self._backend}: {self.kills} kills over {self.num_lives} stores, {self.ends} ends; an undisturbed run "
            f"took {self._seconds:.2f} s; shards committed when killed: {self.committed_when_killed}"
        )

    def _work(self, name: str) -> Work:
        work = self._new(name, seed=self._seed, count=self._count, backend=self._backend)
        if self._positions != ["last"]:
            work.job["extract"]["positions"] = [{"last": 4} if p == "last-4" else p for p in self._positions]
            work.save()
        return work

    def kill(self, kills: int, number: int = signal.SIGKILL) -> None:
        """Kill so often, and let the last life end."""
        while self.kills < kills:
            self.num_lives += 1
            self._live(self._work(f"{self._backend}{self.num_lives}"), kills, number)

    def _live(self, work: Work, kills: int, number: int) -> None:
        before: dict[str, tuple[int, ...]] = {}
        while True:
            pending = self._pending(before)
            command = work.start()
            # Once all is committed little is left to be killed in.
            may_kill = self.kills < kills and (pending or self._draw.random() < 0.3)
            if may_kill and not self._moment(work, command, len(before)):
                command.send(number)
            if command.wait() == 0:
                assert work.states() == self._want
                assert {k: v for k, v in work.committed().items() if k in before} == before
                if pending:
                    assert work.extracted() == pending
                self.ends += 1
                return
            assert command.status == -number, command.err
            self.kills += 1
            before = self._check_left(work, before)

    def _moment(self, work: Work, command: Command, num_committed: int) -> bool:
        """Wait for the moment to kill: any, or just after some commit; returns whether the command ended before it."""
        if self._draw.random() < 0.25:
            return command.ended_within(self._draw.uniform(0, 1.1 * self._seconds))
        wanted = num_committed + self._draw.randint(0, 5)
        while work.num_records() < wanted:
            if command.ended_within(0.003):
                return True
        return command.ended_within(self._draw.expovariate(1 / 0.01))

    def _pending(self, committed: dict[str, tuple[int, ...]]) -> int:
        """Sentences of the blocks that have a shard which is not committed."""
        pending = 0
        for start in range(0, self._count, BLOCK):
            stop = min(start + BLOCK, self._count)
            shards = {
                f"{group} {shard}"
                for group, rows in self._groups.items()
                for shard in range(start * rows // SHARD, -(-stop * rows // SHARD))
            }
            pending += 0 if shards <= committed.keys() else stop - start
        return pending

    def _check_left(self, work: Work, before: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        now, found = work.committed(), work.states()
        assert {k: v for k, v in now.items() if k in before} == before, "a committed shard was touched"
        for key in now:
            group, shard = key.split()
            for path in (f"{group}/hidden_states/c/{shard}/0/0", f"{group}/shard_fingerprint/c/{shard}/0"):
                assert found[path] == self._want[path], path
        self.committed_when_killed.append(len(now))
        return now


# What a command runs first: it is killed before its file operation of this number (`moment`).
KILL_AT_OPERATION = """
import os, signal
from drillcore.store.places.local import DurableStore
count = 0
def counted(real):
    def operation(*arguments):
        global count
        count += 1
        if count == {moment}:
            os.killpg(0, signal.SIGKILL)
        return real(*arguments)
    return operation
for name in ("put", "remove", "rename"):
    setattr(DurableStore, name, counted(getattr(DurableStore, name)))
"""
KILL_BEFORE_FINGERPRINT = """
import os, signal
from drillcore.store import group
written, put = [], group.write_seal
def kill(store, path, shard, seal):
    written.append(shard)
    if len(written) > {nth}:
        os.killpg(0, signal.SIGKILL)
    put(store, path, shard, seal)
group.write_seal = kill
"""


def bare_rights() -> str:
    """Python that takes from root the right to write where the mode of a file forbids it; nothing for others."""
    return """
import ctypes, os
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective ones
    assert libc.capset(head, data) == 0
"""


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def can_mount() -> bool:
    """Whether this user may mount a small file system."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if not _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small file system on a folder; yields what changes its options."""
    folder.mkdir(parents=True)
    assert _mount("-t", "tmpfs", "-o", size, "tmpfs", str(folder))

    def remount(options: str) -> None:
        assert _mount("-o", f"remount,{options}", str(folder))

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
