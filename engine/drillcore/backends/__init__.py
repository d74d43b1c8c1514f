"""Engines that run models, by name: what is chosen by name stands in one table."""

from __future__ import annotations

BACKENDS = {
    "auto": ("drillcore.backends.auto:AutoBackend", "transformers"),
    "transformers": ("drillcore.backends.transformers.backend:TransformersBackend", "transformers"),
    "vllm": ("drillcore.backends.vllm.backend:VllmBackend", "vllm"),
    "fake": ("drillcore.backends.fake:FakeBackend", ""),
}
