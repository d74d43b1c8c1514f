"""One of the processes that share a model, beside the first: `python -m drillcore.backends.transformers.shard PID`.

Its standard input says what to do, in pickles of the first process: a `Start`, then a `Pass` after the other. It ends
when that input does, or its parent.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from drillcore.backends.device import choose_device
from drillcore.backends.source import locate
from drillcore.backends.transformers.loading import load_shard
from drillcore.backends.transformers.precision import computing_in, experts_in
from drillcore.backends.transformers.shards import READY, Pass, Start, join, on_device, store_at
from drillcore.backends.transformers.ways import register


def main() -> None:
    """Run what the first process runs, until it ends."""
    start, messages = pickle.load(sys.stdin.buffer), SimpleQueue[Pass]()
    assert isinstance(start, Start)
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    threading.Thread(target=_watch, args=(int(sys.argv[1]),), daemon=True).start()
    torch.set_num_threads(start.threads)
    device = choose_device(start.extract)
    _say_ready()
    join(store_at(start.port), start.rank, start.extract.tensor_parallel, device)
    causal, decoder, layers = load_shard(locate(start.model, Path("/")), start.extract)
    _say_ready()
    own = next(causal.parameters()).dtype
    while True:
        passed = messages.get()
        if causal.config._attn_implementation != passed.attention:
            register(passed.attention)
            causal.set_attn_implementation(passed.attention)
        arguments: dict[str, Any] = on_device(passed.kwargs, device)
        dtype = passed.dtype or own
        raised = computing_in(causal, layers, dtype) if dtype != own else nullcontext()
        with raised, experts_in(causal, dtype), torch.inference_mode():
            decoder(*on_device(passed.args, device), **arguments)


def _say_ready() -> None:
    os.write(sys.stdout.fileno(), READY)


def _read(messages: SimpleQueue[Pass]) -> None:
    """Queue what the first process sends; end this one, whatever it is doing, when no more can come."""
    try:
        while True:
            messages.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _watch(parent: int) -> None:
    """End this process with its parent, also where others of its children keep the pipe open."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main()
