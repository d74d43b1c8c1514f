"""vLLM as one would use it bare: pooling runner, a hook on every layer, each prompt's last token, its own defaults.

`python vllm_bare.py --model DIR --tokens FILE.npz --repeat N --out RESULT.json` in vLLM's environment. The file holds
`ids` and `offsets`. Loading is not timed. With --serve it runs once for each line that it reads and answers with
{"seconds": ...}. --states FILE.npy: states [sentence, L + 2, hidden] of the first sentences, to see that they agree.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
OPENMP = Path(sys.prefix) / "lib" / "libiomp5.so"
CHECKED = 32


class LastTokens(nn.Module):
    """A pooler that stacks what the hooks took of each request's last token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.get_supported_tasks = model.pooler.get_supported_tasks
        self.get_pooling_updates = model.pooler.get_pooling_updates
        self.states: list[torch.Tensor] = []
        blocks = model.model.layers
        blocks[0].register_forward_pre_hook(self.before)
        for block in blocks:
            block.register_forward_hook(self.after)

    def before(self, block: nn.Module, args: Any) -> None:
        self.states = [args[1].clone()]

    def after(self, block: nn.Module, args: Any, output: Any) -> None:
        hidden, residual = output
        self.states.append(hidden + residual)

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[torch.Tensor]:
        last = pooling_metadata.get_pooling_cursor().last_token_indices_gpu
        states = torch.stack([layer[last] for layer in [*self.states, hidden_states]], 1)
        self.states = []
        return list(states)


class Extension:
    """Mixed into vLLM's worker."""

    def keep_last_tokens(self) -> None:
        model = self.model_runner.get_model()
        model.pooler = LastTokens(model)


def start(model: str, dtype: str) -> Any:
    """The engine, with the hooks in place."""
    from vllm import LLM

    llm = LLM(
        model=model,
        dtype=dtype,
        runner="pooling",
        convert="embed",
        enforce_eager=True,
        disable_log_stats=True,
        worker_extension_cls="vllm_bare.Extension",
    )
    llm.collective_rpc("keep_last_tokens")
    return llm


def run(llm: Any, sentences: list[list[int]]) -> list[torch.Tensor]:
    """States [L + 2, hidden] of each sentence."""
    from vllm import PoolingParams

    outputs = llm.encode(
        [{"prompt_token_ids": ids} for ids in sentences],
        PoolingParams(use_activation=False),
        pooling_task="embed",
        use_tqdm=False,
    )
    return [output.outputs.data for output in outputs]


def timed(llm: Any, sentences: list[list[int]]) -> tuple[float, list[torch.Tensor]]:
    """Seconds, and the states. The prefix cache is emptied first, or a second run would find every prompt in it."""
    llm.reset_prefix_cache()
    started = time.perf_counter()
    states = run(llm, sentences)
    return time.perf_counter() - started, states


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out", required=True)
    parser.add_argument("--states")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    if OPENMP.exists():
        os.environ["LD_PRELOAD"] = f"{os.environ.get('LD_PRELOAD', '')}:{OPENMP}".strip(":")
    with np.load(asked.tokens) as tokens:
        ids, offsets = tokens["ids"], tokens["offsets"]
    sentences = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    started = time.perf_counter()
    llm = start(asked.model, asked.dtype)
    load_seconds = time.perf_counter() - started
    import vllm

    seconds: list[float] = []
    for _ in sys.stdin if asked.serve else range(asked.repeat):
        spent, states = timed(llm, sentences)
        seconds.append(spent)
        if asked.states:
            np.save(asked.states, torch.stack(states[:CHECKED]).float().numpy())
        # Who reads this may read the states at once.
        if asked.serve:
            print(json.dumps({"seconds": spent}), flush=True)
    result = {
        "peer": "vllm_bare",
        "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
        "sentences": len(sentences),
        "tokens": len(ids),
        "load_seconds": load_seconds,
        "seconds": seconds,
        "sentences_per_second": [len(sentences) / s for s in seconds],
    }
    Path(asked.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    llm.llm_engine.engine_core.shutdown()


if __name__ == "__main__":
    main()
