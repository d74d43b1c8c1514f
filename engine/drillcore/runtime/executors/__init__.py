"""Where pieces of work run, by name."""

from __future__ import annotations

EXECUTORS = {
    "local": ("drillcore.runtime.executors.local:LocalExecutor", ""),
    "ray": ("drillcore.runtime.executors.ray.executor:RayExecutor", "ray"),
}
