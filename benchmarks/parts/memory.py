"""Does peak memory grow with the number of sentences? Extracts few and many full blocks of a tiny random model.

    python -m benchmarks.parts.memory [--few 2] [--many 100] [--block 32768] [--out FILE]

Each run is `drillcore extract` in a fresh process, from text file to store; its peak is what the system counted when
it ended. Exit status 1 where the larger run's peak is 10 % or more above the smaller one's. Standard library only,
since a process begins with the peak of the one that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.10
WORDS = [f"w{i}" for i in range(300)]

MAKE_MODEL = """
import sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
folder = sys.argv[1]
torch.manual_seed(0)
config = AutoConfig.for_model(
    "llama", vocab_size=302, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=128,
)
AutoModelForCausalLM.from_config(config).save_pretrained(folder)
words = {"<unk>": 0, "<s>": 1, **{f"w{i}": i + 2 for i in range(300)}}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
"""


def write_texts(path: Path, count: int) -> None:
    """Sentences of 4 to 10 words, one a line."""
    draw = random.Random(count)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            stream.write(" ".join(draw.choices(WORDS, k=draw.randint(4, 10))) + "\n")


def write_job(folder: Path, name: str, block: int) -> Path:
    """A job file beside its texts."""
    path = folder / f"{name}.yaml"
    path.write_text(
        f"models: [{{id: ./model}}]\ndatasets: {{texts: {name}.txt}}\nstore: {name}.zarr\n"
        f"extract: {{block_sentences: {block}, shard_sentences: {min(block, 32_768)}}}\n",
        encoding="utf-8",
    )
    return path


def peak_of(command: list[str], folder: Path) -> tuple[int, float]:
    """Run a command to its end; its peak memory in bytes, and its seconds. Raises RuntimeError where it fails."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    with (folder / "log.txt").open("w+", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[:4])} ended with status {process.returncode}:\n{log.read()[-2000:]}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds


def measure(folder: Path, num_blocks: int, block: int) -> dict[str, Any]:
    """Peak memory of extracting so many full blocks."""
    name = f"blocks-{num_blocks}"
    write_texts(folder / f"{name}.txt", num_blocks * block)
    job = write_job(folder, name, block)
    code = "import sys; from drillcore.cli.main import main; sys.argv[0] = 'drillcore'; main()"
    peak, seconds = peak_of([sys.executable, "-c", code, "extract", str(job)], folder)
    return {"blocks": num_blocks, "sentences": num_blocks * block, "peak_bytes": peak, "seconds": seconds}


def main() -> int:
    """Measure both, print, judge."""
    parser = argparse.ArgumentParser(description="Peak memory of few and of many full blocks.")
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument("--block", type=int, default=32_768, help="sentences of a block, a power of two")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="memory-") as scratch:
        folder = Path(scratch)
        peak_of([sys.executable, "-c", MAKE_MODEL, str(folder / "model")], folder)
        runs = [measure(folder, n, options.block) for n in (options.few, options.many)]
    growth = runs[1]["peak_bytes"] / runs[0]["peak_bytes"]
    for run in runs:
        print(
            f"{run['blocks']:>4} blocks, {run['sentences']:>10,} sentences: peak {run['peak_bytes'] / 2**20:,.1f} MiB, "
            f"{run['seconds']:.1f} s"
        )
    met = growth < LIMIT
    print(f"the larger takes {growth:.3f} times the memory (limit {LIMIT:g}): {'met' if met else 'not met'}")
    if options.out is not None:
        results = {"kind": "drillcore-memory", "block": options.block, "runs": runs, "growth": growth, "met": met}
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as failure:
        print(f"bench_memory.py: {failure}", file=sys.stderr)
        sys.exit(2)
