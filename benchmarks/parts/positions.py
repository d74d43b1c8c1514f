"""What other positions than the last token cost: seconds of the forward passes, runs in turn.

    python -m benchmarks.parts.positions [--texts FILE] [--sentences N] [--rounds N] [--quick] [--out FILE]

Each run extracts the same texts into a store of its own, without the audit; its manifest says how long the passes took.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import grid, make_parser, parse, scratch_folder, write_results
from drillcore.job.fields import Job, LoadedJob
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent

SETS: dict[str, list[Any]] = {
    "last": ["last"],
    "last, mean, last 4": ["last", "mean", {"last": 4}],
    "last, all": ["last", "all"],
}


def main() -> None:
    """Run, print, write."""
    parser = make_parser(__doc__, quick="two rounds of few sentences")
    parser.add_argument("--texts", type=Path, help="JSONL with a field `text` (default: made-up free text)")
    parser.add_argument("--model", default="demo/smollm2-135m-instruct")
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parse(parser, {"sentences": 12, "rounds": 2})
    with scratch_folder(options, "positions") as folder:
        texts = folder / "texts.jsonl"
        texts.write_text("\n".join(json.dumps({"text": t}) for t in _texts(options)), encoding="utf-8")
        seconds: dict[str, list[float]] = {name: [] for name in SETS}
        run(folder, options.model, "warm", SETS["last"])
        for number in range(options.rounds):
            for name, positions in SETS.items():
                seconds[name].append(run(folder, options.model, f"{number}-{len(seconds[name])}-{name}", positions))
                print(f"{name}: {seconds[name][-1]:.3f} s", flush=True)
    base = statistics.median(seconds["last"])
    rows = [[name, f"{statistics.median(s):.3f}", f"{statistics.median(s) / base:.3f}"] for name, s in seconds.items()]
    print(grid(["positions", "seconds of passes", "over last"], rows))
    write_results("positions", options, {"sentences": options.sentences, "model": options.model, "seconds": seconds})


def _texts(options: Any) -> list[str]:
    """The first texts of a file, or made-up ones that share little."""
    if options.texts is not None:
        lines = options.texts.read_text(encoding="utf-8").split("\n")
        return [json.loads(line)["text"] for line in lines[: options.sentences]]
    from benchmarks.peers.made_texts import free

    return free(options.sentences)


def run(folder: Path, model: str, name: str, positions: list[Any]) -> float:
    """Seconds that the forward passes of one run took."""
    job = Job.model_validate(
        {
            "name": "positions",
            "store": str(folder / f"{name}.zarr"),
            "models": [{"id": model, "as": "m"}],
            "datasets": [{"name": "d", "path": "texts.jsonl"}],
            "extract": {"positions": positions},
            "run": {"audit": 0},
        }
    )
    run_stages(LoadedJob(job=job, base=folder, source="positions"), ("extract",), Silent())
    manifest = json.loads((folder / name / "manifest.json").read_text(encoding="utf-8"))
    return float(manifest["models"]["m"]["extract"]["seconds"]["forward"])


if __name__ == "__main__":
    main()
