"""Names machines and processes beyond the reuse of names and numbers, to tell whether a process still runs."""

from __future__ import annotations

import os
from pathlib import Path


def this_machine() -> str:
    """Names this boot and space of process numbers; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def name_of(pid: int) -> str:
    """Number and start time of a process; empty where there is none, or the system does not tell.

    >>> name_of(os.getpid()) == name_of(os.getpid()) or not this_machine()
    True
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The state and the start time follow the name, which stands in brackets and may hold anything.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{pid} {fields[19]}"


def has_ended(process: object) -> bool:
    """Whether a process of this machine, by its `name_of`, has ended for certain; False for what is no such name.

    >>> has_ended(name_of(os.getpid())), has_ended(""), has_ended(None)
    (False, False, False)
    """
    pid = process.partition(" ")[0] if isinstance(process, str) else ""
    if not this_machine() or not pid.isdecimal() or not 0 < int(pid) < 2**31:
        return False
    found = name_of(int(pid))
    if found:
        return found != process
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # it runs, and the system hides it from us
    # It ended a moment ago and waits for its parent, unless the system hides even our own processes.
    return bool(name_of(os.getpid()))
