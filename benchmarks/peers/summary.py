"""What a run's single times amount to: medians, ratios pair by pair, targets, a table. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import grid

# The peers' targets: how many times as long they take as the whole job, on free text and on templates.
SPEED_TARGETS = {"hf_loop": (2.6, 4.5), "hf_padded": (1.2, 2.3), "vllm_bare": (1.0, 1.9)}
MATRIX_TARGET, OVERHEAD_TARGET, AGREEMENT_TARGET = 0.85, 1.05, 1e-5
# Texts of which at least so many tokens are shared prefixes are held to the targets of templates.
TEMPLATED_SHARE = 0.3


def pairs(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Ratios of what was measured in the same round."""
    return [a / b for a, b in zip(over, under, strict=False)]


def summarize(result: dict[str, Any], num_parameters: int) -> None:
    """Add `medians`, `ratios`, `figures` and `targets` to one text's result, which holds `facts`, `times`, `peers`."""
    times: dict[str, list[float]] = result["times"]
    rates: list[float] = result["matrix_flops_per_second"]
    facts, job = result["facts"], times["job"]
    flops = 2.0 * num_parameters * facts["nodes"]
    result["medians"] = {name: statistics.median(t) for name, t in times.items() if t}
    result["ratios"] = {
        f"{name} / job": _spread(pairs(t, job))
        for name, t in times.items()
        if t and (name in result["peers"] or name == "job_float32")
    } | {"job / forward": _spread(pairs(job, times["forward"]))}
    share = [flops / seconds / rate for seconds, rate in zip(job, rates, strict=True)]
    bare = [flops / seconds / rate for seconds, rate in zip(times["forward"], rates, strict=True)]
    result["figures"] = {
        "sentences_per_second": {
            name: facts["sentences"] / median
            for name, median in result["medians"].items()
            if name not in ("write", "encode", "disk")
        },
        "matrix_flops_per_second": statistics.median(rates),
        "job_flops_over_matrix_rate": _spread(share),
        "forward_flops_over_matrix_rate": _spread(bare),
        "writer": _writer(result),
    }
    result["targets"] = targets(result)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _writer(result: dict[str, Any]) -> dict[str, Any]:
    medians, fed = result["medians"], result["facts"]["written"]
    return {
        **fed,
        "raw_bytes_per_second": fed["raw_bytes"] / medians["write"],
        "sentences_per_second": fed["sentences"] / medians["write"],
        "bound_by": "disk" if medians["disk"] >= medians["encode"] else "encoding",
    }


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a target: what is claimed, what was measured, whether it is met (None where the peer is absent)."""
    facts = result["facts"]
    templated = 1 - facts["nodes"] / facts["tokens"] >= TEMPLATED_SHARE
    rows = []
    for peer, wanted in SPEED_TARGETS.items():
        ratio = result["ratios"].get(f"{peer} / job")
        rows.append(_target(f"whole job over {peer}", ">=", wanted[templated], ratio and ratio["median"]))
    share = result["figures"]["job_flops_over_matrix_rate"]["median"]
    rows.append(_target("model FLOPs over matrix-product rate", ">=", MATRIX_TARGET, share))
    rows.append(
        _target("whole job over bare forward", "<=", OVERHEAD_TARGET, result["ratios"]["job / forward"]["median"])
    )
    agreement = result["agreement"]
    # Below float32 one sentence at a time is itself so far from float32.
    allowed = max(AGREEMENT_TARGET, 1.5 * agreement.get("one at a time", 0.0))
    rows.append(_target("agreement with one at a time in float32", "<=", allowed, agreement.get("job")))
    return rows


def _target(claim: str, sign: str, wanted: float, value: float | None) -> dict[str, Any]:
    met = None if value is None else (value >= wanted if sign == ">=" else value <= wanted)
    return {"claim": claim, "target": f"{sign} {wanted:g}", "value": value, "met": met}


def table(results: dict[str, Any]) -> str:
    """A whole run, to read: a line a step or peer, then the targets, for each text."""
    hardware, parameters = results["hardware"], results["parameters"]
    head = (
        f"{parameters['model']}, {parameters['dtype']}, {parameters['threads']} threads of {hardware['cpu']} "
        f"({hardware['instructions']}), torch {results['versions'].get('torch')}, commit {results['git_commit']}\n"
        f"not counted: imports {results['import_seconds']:.1f} s, load and self-check {results['load_seconds']:.1f} s"
    )
    return "\n\n".join([head, *(_text_table(name, result) for name, result in results["texts"].items())])


def _text_table(name: str, result: dict[str, Any]) -> str:
    facts, figures = result["facts"], result["figures"]
    head = (
        f"{name} ({facts['origin']}): {facts['sentences']:,} sentences, {facts['tokens']:,} tokens, "
        f"{facts['nodes']:,} nodes ({1 - facts['nodes'] / facts['tokens']:.0%} shared), "
        f"{facts['padding'] / (facts['nodes'] + facts['padding']):.1%} padding"
    )
    rows = []
    for contender, median in result["medians"].items():
        rate = figures["sentences_per_second"].get(contender)
        ratio = result["ratios"].get(f"{contender} / job")
        error = result["agreement"].get(contender)
        spread = "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        rate_text, error_text = "" if rate is None else f"{rate:,.1f}", "" if error is None else f"{error:.1e}"
        rows.append([contender, f"{median:.3f}", rate_text, spread, error_text])
    absent = "".join(f"\n{peer} is absent: {f['absent']}" for peer, f in result["peers"].items() if "absent" in f)
    writer = figures["writer"]
    notes = (
        f"machine: {figures['matrix_flops_per_second'] / 1e9:.1f} GFLOP/s in matrix products; "
        f"model FLOPs over it: whole job {figures['job_flops_over_matrix_rate']['median']:.1%}, "
        f"bare forward {figures['forward_flops_over_matrix_rate']['median']:.1%}\n"
        f"writer alone: {writer['raw_bytes_per_second'] / 1e6:,.0f} MB/s, {writer['sentences_per_second']:,.0f} "
        f"sentences/s, bound by {writer['bound_by']}\n"
        f"other work on the machine meanwhile: {statistics.median(result['busy_cores']):.2f} cores"
    )
    words = {True: "met", False: "not met", None: "not measured"}
    verdicts = [
        [t["claim"], t["target"], "-" if t["value"] is None else f"{t['value']:.3g}", words[t["met"]]]
        for t in result["targets"]
    ]
    body = grid(["", "seconds", "sentences/s", "times the job", "error"], rows)
    return "\n".join([head, body + absent, notes, grid(["target", "wanted", "measured", ""], verdicts)])
