"""Who hears the progress of a call."""

from __future__ import annotations

from drillcore.system.progress import ProgressListener, Silent


def listener(progress: ProgressListener | bool | None) -> ProgressListener:
    """The listener that a caller asked for; None says nothing."""
    return Silent() if progress is None or isinstance(progress, bool) else progress
