"""Where pieces of work run, by name."""

from __future__ import annotations

EXECUTORS = {
    "local": ("drillcore.executors.local:LocalExecutor", ""),
    "ray": ("drillcore.executors.ray:RayExecutor", "ray"),
}
