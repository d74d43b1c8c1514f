"""Throughput of one model: eager, compiled and merged, device alone, whole run and job, peers, and a profile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.ceilings import CUDA, median_seconds, synchronise
from benchmarks.gpu.compiled import is_compiled, merged, run_on_device, uncompiled
from benchmarks.gpu.correctness import CHECKED, check
from benchmarks.gpu.models import CONFIGS, SENTENCES, TEXTS, model_task, open_backend
from benchmarks.gpu.peers import PEERS, share_for
from drillcore.cli.bench.scratch_job import make_job
from drillcore.runtime.work.pipeline import extract_blocks
from drillcore.runtime.work.sink import ShardSink
from drillcore.system.progress import Progress


def measure_model(
    row: dict[str, Any], folder: Path, options: Any, matmul_flops: float, write: Callable[[], None]
) -> None:
    """Fill a row: seconds of every part of the start, the check, and sentences a second by text, design and peer.

    `share`: two operations a parameter and useful node, over the rate of matrix products. `write` is called whenever a
    part is measured.
    """
    started, name = time.perf_counter(), row["model"]

    def note(part: str) -> None:
        synchronise()
        row[f"{part}_after_seconds"] = time.perf_counter() - started
        write()

    source, backend = open_backend(CONFIGS[name], folder)
    note("loaded")
    vocab = backend.facts.vocab_size
    texts = {text: make(SENTENCES[name], vocab) for text, make in TEXTS.items()}
    prepared = backend.prepare(texts["free text"].slice(0, 64), None)
    row |= {"layout": prepared.check.layout, "notes": list(prepared.notes), "compiled": prepared.compiled}
    row |= {"memory": prepared.memory, "numerics": prepared.numerics}
    note("prepared")
    row["check"] = check(source, backend, texts["free text"].slice(0, CHECKED))
    note("checked")
    if not row["check"]["right"]:
        return
    row["texts"] = {}
    for text, tokens in texts.items():
        row["texts"][text] = _measure_text(row, text, tokens, backend, folder, options, matmul_flops)
        note(text)
    if name in options.merge.split(","):
        with merged(backend):
            tokens = texts["free text"].slice(0, CHECKED)
            row["merged"] = {"check": check(source, backend, tokens), **_free_text_alone(backend, texts, options)}
        note("merged")
    if CUDA:
        row["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    backend.close()


def _measure_text(
    row: dict[str, Any], text: str, tokens: Any, backend: Any, folder: Path, options: Any, matmul_flops: float
) -> dict[str, Any]:
    """Rates of one text; other designs than the backend's own, and the profile, on free text only."""
    work = backend.lay_out(tokens)
    padding = work.num_nodes + work.num_padding
    found: dict[str, Any] = {"sentences": len(tokens), "nodes": work.num_nodes, "fill": work.num_nodes / padding}
    flops = 2 * backend.facts.num_parameters * work.num_nodes

    def timed(run: Callable[[], Any]) -> dict[str, float]:
        seconds = median_seconds(run, options.repeats)
        return {**_rate(len(tokens), seconds), "share": flops / seconds / matmul_flops}

    profiled = text == "free text" and row["model"] in options.profile.split(",")
    design = "compiled" if is_compiled(backend) else "eager"
    found[f"{design}, device alone"] = timed(lambda: run_on_device(backend, work))
    found[f"{design}, whole run"] = timed(lambda: [None for _ in backend.run(work)])
    found[f"{design}, job to the committed store"] = timed(lambda: _job(backend, tokens, folder / "store"))
    if profiled:
        _profile(backend, work, options.out / f"profile-{row['model']}-{design}.txt")
    if text == "free text" and is_compiled(backend):
        with uncompiled(backend):
            found["eager, device alone"] = timed(lambda: run_on_device(backend, work))
            if profiled:
                _profile(backend, work, options.out / f"profile-{row['model']}-eager.txt")
    for peer, run_peer in PEERS.items():
        few = share_for(peer, tokens)
        found[peer] = _rate(len(few), median_seconds(lambda run=run_peer, few=few: run(backend, few), options.repeats))
    own = found[f"{design}, job to the committed store"]["sentences_per_second"]
    found["job over peers"] = {peer: own / found[peer]["sentences_per_second"] for peer in PEERS}
    return found


def _free_text_alone(backend: Any, texts: dict[str, Any], options: Any) -> dict[str, Any]:
    work = backend.lay_out(texts["free text"])
    return _rate(len(texts["free text"]), median_seconds(lambda: run_on_device(backend, work), options.repeats))


def _job(backend: Any, tokens: Any, folder: Path) -> None:
    """All blocks of the sentences into a store, as a worker extracts them with a model that is loaded."""
    shutil.rmtree(folder, ignore_errors=True)
    job = make_job(model_task(backend, tokens), backend.facts.num_layers, backend.facts.hidden_size, tokens, folder)
    for _ in extract_blocks(backend, iter(job.tasks), ShardSink(), Progress()):
        pass


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


def lines(row: dict[str, Any]) -> str:
    """A row to read: right or wrong, and every rate of every text."""
    if "error" in row:
        return f"{row['model']:14} {row['error'].strip().splitlines()[-1][:300]}"
    out = [f"{row['model']:14} {'right' if row['check']['right'] else 'WRONG'}; {'; '.join(row['notes'])}"]
    texts = dict(row.get("texts", {}))
    if "merged" in row:
        way = f"merged, device alone ({'right' if row['merged']['check']['right'] else 'WRONG'})"
        texts["free text"] = {**texts["free text"], way: row["merged"]}
    for text, found in texts.items():
        for way, facts in found.items():
            if isinstance(facts, dict) and "sentences_per_second" in facts:
                share = f"{facts['share']:8.1%} of matmul" if "share" in facts else ""
                out.append(f"  {text:10} {way:40} {facts['sentences_per_second']:12,.0f} sentences/s {share}")
    return "\n".join(out)
