"""Throughput of one model: eager and compiled, the device alone and a whole run, peers, and a profile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.ceilings import CUDA, median_seconds, synchronise
from benchmarks.gpu.compiled import is_compiled, run_on_device, uncompiled
from benchmarks.gpu.correctness import CHECKED, check
from benchmarks.gpu.models import CONFIGS, SENTENCES, TEXTS, open_backend
from benchmarks.gpu.peers import PEERS, share_for


def measure_model(name: str, folder: Path, options: Any, matmul_flops: float) -> dict[str, Any]:
    """One row: seconds of every part of the start, the check, and sentences a second by design and peer.

    `share`: two operations a parameter and useful node, over the rate of matrix products.
    """
    started = time.perf_counter()
    row: dict[str, Any] = {"model": name}

    def note(part: str) -> None:
        synchronise()
        row[f"{part}_after_seconds"] = time.perf_counter() - started

    source, backend = open_backend(CONFIGS[name], folder)
    note("loaded")
    tokens = TEXTS["free text"](SENTENCES[name], backend.facts.vocab_size)
    prepared = backend.prepare(tokens.slice(0, 64), None)
    row |= {"layout": prepared.check.layout, "notes": list(prepared.notes), "compiled": prepared.compiled}
    note("prepared")
    row["check"] = check(source, backend, tokens.slice(0, CHECKED))
    note("checked")
    work = backend.lay_out(tokens)
    row |= {"nodes": work.num_nodes, "batches": len(work.parts), "sentences": len(tokens)}
    designs = {"compiled": nullcontext()} if is_compiled(backend) else {}
    designs |= {"eager": uncompiled(backend)}
    for design, in_use in designs.items():
        with in_use:
            for way, run in _ways(backend, work).items():
                seconds = median_seconds(run, options.repeats)
                share = 2 * backend.facts.num_parameters * work.num_nodes / seconds / matmul_flops
                row[f"{design} {way}"] = {**_rate(len(tokens), seconds), "share": share}
            if name in options.profile.split(","):
                _profile(backend, work, options.out / f"profile-{name}-{design}.txt")
    for peer, run_peer in PEERS.items():
        few = share_for(peer, tokens)
        row[peer] = _rate(len(few), median_seconds(lambda run=run_peer, few=few: run(backend, few), 2))
    if CUDA:
        row["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    backend.close()
    return row


def _ways(backend: Any, work: Any) -> dict[str, Callable[[], Any]]:
    return {
        "device alone": lambda: run_on_device(backend, work),
        "whole run": lambda: [None for _ in backend.run(work)],
    }


def _rate(count: int, seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "sentences_per_second": count / seconds}


def _profile(backend: Any, work: Any, path: Path) -> None:
    """Write what one batch spends its time on, by operation."""
    from torch.profiler import ProfilerActivity, profile

    one = replace(work, parts=work.parts[:1])
    run_on_device(backend, one)
    synchronise()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]
    with profile(activities=activities) as record:
        run_on_device(backend, one)
        synchronise()
    key = "self_device_time_total" if CUDA else "self_cpu_time_total"
    table = record.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=70)
    path.write_text(table, encoding="utf-8")
    print(path.name, "\n" + "\n".join(table.splitlines()[:22]), flush=True)


def line(row: dict[str, Any]) -> str:
    """A row to read: right or wrong, and every rate."""
    if "error" in row:
        return f"{row['model']:14} {row['error'].strip().splitlines()[-1][:300]}"
    verdict = "right" if row["check"]["right"] else "WRONG"
    rates = [
        f"{way} {facts['sentences_per_second']:,.0f}/s" + (f" ({facts['share']:.1%})" if "share" in facts else "")
        for way, facts in row.items()
        if isinstance(facts, dict) and "sentences_per_second" in facts
    ]
    return f"{row['model']:14} {verdict}  {'  '.join(rates)}"
