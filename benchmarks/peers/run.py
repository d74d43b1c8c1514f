"""The project's benchmark: drillcore's steps and its peers, measured in turn in one run, on the same sentences.

    python -m benchmarks.peers.run [--quick] [--texts FILE ...] [--sentences N] [--repeats R] [--model ID] [--peers a,b]
        [--dtype bfloat16]

Prints a table and writes every single time as JSON. What is timed: see docs/benchmarks.md.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, parse, results, scratch_folder, write_results
from benchmarks.peers import summary
from benchmarks.peers.own import STEPS, WRITE_BYTES, Own
from benchmarks.peers.plain import disagreement, states_alone
from benchmarks.peers.processes import PEERS, AbsentError, Peer, VllmBare
from benchmarks.peers.workload import Text, facts_of, make_texts
from drillcore.backends.source import locate
from drillcore.errors import DrillcoreError
from drillcore.job.model import Model
from drillcore.system.machine import busy_cores, num_cores

DEFAULT_MODEL = "demo/smollm2-135m-instruct"
QUICK = {"sentences": 40, "repeats": 1}


def arguments() -> Any:
    """The command line."""
    parser = make_parser(__doc__, quick="40 sentences, one round")
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="files with a field `text`")
    parser.add_argument("--sentences", type=int, default=1000, help="first N of each file, or made up")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="hub id or directory")
    parser.add_argument("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of all contenders")
    parser.add_argument("--threads", type=int, default=num_cores())
    options = parse(parser, QUICK)
    names = list(PEERS) if options.peers == "all" else [p for p in options.peers.split(",") if p not in ("", "none")]
    unknown = [p for p in names if p not in PEERS]
    if unknown or options.sentences < 1 or options.repeats < 1:
        parser.error(f"unknown peers: {', '.join(unknown)}" if unknown else "--sentences and --repeats begin at 1")
    options.peers = names
    return options


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def start_peers(options: Any, model: str, scratch: Path) -> tuple[list[Peer], dict[str, Any]]:
    """Those that run, and the facts of all."""
    running, facts = [], {}
    for name in options.peers:
        say(f"starting {name}")
        peer = (VllmBare if name == "vllm_bare" else Peer)(name, model, options.threads, options.dtype, scratch)
        try:
            peer.start()
            running.append(peer)
            facts[name] = peer.facts
        except AbsentError as error:
            peer.close()
            facts[name] = {"absent": str(error)}
            say(f"{name} is absent: {error}")
    return running, facts


def import_seconds() -> float:
    """What a fresh process spends on imports before it can load a model."""
    code = "import time; t = time.perf_counter(); import drillcore.backends.transformers.backend, transformers, zarr; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(time.perf_counter() - t)"], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure_text(
    own: Own, float32: Own | None, peers: list[Peer], text: Text, want: Any, options: Any, scratch: Path
) -> dict[str, Any]:
    """All rounds on one text. float32: drillcore in float32, where the contenders compute in another dtype."""
    first_seconds, states = own.warm(text, 1 if options.quick else WRITE_BYTES)
    result: dict[str, Any] = {
        "facts": facts_of(text),
        "first_job_seconds": first_seconds,
        "times": {step: [] for step in STEPS},
        "matrix_flops_per_second": [],
        "busy_cores": [],
        "agreement": {"job": disagreement(states, want)},
        "peers": {},
    }
    if float32 is not None:
        float32.warm(text, 1)
        result["times"]["job_float32"] = []
    ready = warm_peers(peers, text, result)
    for repeat in range(options.repeats):
        result["busy_cores"].append(busy_cores())
        result["matrix_flops_per_second"].append(one_round(own, ready, text, want, repeat, result, scratch))
        if float32 is not None:
            result["times"]["job_float32"].append(float32.measure("job", text))
        say(f"{text.name}: round {repeat + 1} of {options.repeats} done")
    done = own.last[text.name]
    result["facts"] |= {"nodes": done.num_nodes, "padding": done.num_padding, "written": own.written(text)}
    result["facts"]["stage_seconds"] = done.stage_seconds
    return result


def warm_peers(peers: list[Peer], text: Text, result: dict[str, Any]) -> list[Peer]:
    """A first pass of each; those that manage it."""
    ready = []
    for peer in peers:
        say(f"{text.name}: warming {peer.name}")
        try:
            peer.warm(text)
            ready.append(peer)
            result["times"][peer.name], result["peers"][peer.name] = [], {}
        except AbsentError as error:
            result["peers"][peer.name] = {"absent": str(error)}
    return ready


def one_round(
    own: Own, peers: list[Peer], text: Text, want: Any, repeat: int, result: dict[str, Any], scratch: Path
) -> float:
    """Every contender once, beginning with another one each round; returns the machine's rate meanwhile."""
    rates: list[float] = []
    # The job and what it is compared with most closely stay side by side.
    entries: list[Any] = [("forward", "job"), *peers, ("tokenize", "pack", "write", "encode", "disk")]
    turn = repeat % len(entries)
    for entry in entries[turn:] + entries[:turn]:
        if isinstance(entry, Peer):
            measure_peer(entry, peers, text, want, result, scratch)
            continue
        # Neither of two always comes first.
        for step in entry if repeat % 2 == 0 or "write" in entry else entry[::-1]:
            if step in ("forward", "job"):
                rates += own.matrix()
            result["times"][step].append(own.measure(step, text))
        if "job" in entry:
            rates += own.matrix()
    return statistics.median(rates)


def measure_peer(peer: Peer, peers: list[Peer], text: Text, want: Any, result: dict[str, Any], scratch: Path) -> None:
    """One measurement of a peer, its states compared the first time; one that fails takes no further part."""
    times: list[float] = result["times"][peer.name]
    written = scratch / f"{peer.name}-{text.name}.npy"
    try:
        times.append(peer.measure(text, None if times else written))
    except AbsentError as error:
        result["peers"][peer.name] = {"absent": str(error)}
        del result["times"][peer.name]
        peers.remove(peer)
        return
    slots, states = peer.states(text, written)
    if slots:
        result["agreement"][peer.name] = disagreement(states, want[slots])


def run(options: Any) -> dict[str, Any]:
    """The whole benchmark: the facts that its results hold beside those of the machine."""
    with scratch_folder(options, "bench") as scratch:
        source = locate(Model(id=options.model), Path.cwd())
        own = Own(source, options.threads, scratch, options.dtype)
        float32 = Own(source, options.threads, scratch) if options.dtype != "float32" else None
        texts = make_texts(options.texts, options.sentences, source, scratch)
        prepared = own.prepare(texts)
        wants = states_alone(source.location, texts)
        rounded = states_alone(source.location, texts, options.dtype)
        if float32 is not None:
            float32.prepare(texts)
        peers, facts = start_peers(options, source.location, scratch)
        by_text: dict[str, Any] = {}
        try:
            for text in texts:
                result = measure_text(own, float32, peers, text, wants[text.name], options, scratch)
                result["agreement"]["one at a time"] = disagreement(rounded[text.name], wants[text.name])
                summary.summarize(result, source.facts.num_parameters)
                result["peers"] |= {n: f for n, f in facts.items() if "absent" in f}
                by_text[text.name] = result
        finally:
            for peer in peers:
                peer.close()
            own.close()
            if float32 is not None:
                float32.close()
    return {
        "parameters": {
            "model": options.model,
            "num_parameters": source.facts.num_parameters,
            "dtype": options.dtype,
            "sentences": options.sentences,
            "repeats": options.repeats,
            "threads": options.threads,
        },
        "numerics": prepared.numerics,
        "import_seconds": import_seconds(),
        "load_seconds": prepared.load_seconds,
        "peers": facts,
        "texts": by_text,
    }


def main() -> int:
    """Run, print, write."""
    options = arguments()
    try:
        facts = run(options)
    except DrillcoreError as error:
        print(f"run.py: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_status
    print(summary.table(results("benchmarks", options, facts)))
    write_results("benchmarks" if options.dtype == "float32" else f"benchmarks-{options.dtype}", options, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
