"""Engines that run models, by name: what is chosen by name stands in one table."""

from __future__ import annotations

BACKENDS = {
    "transformers": ("drillcore.backends.transformers:TransformersBackend", "transformers"),
    "vllm": ("drillcore.backends.vllm:VllmBackend", "vllm"),
    "fake": ("drillcore.backends.fake:FakeBackend", ""),
}
