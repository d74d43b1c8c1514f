"""Does peak memory grow with the number of sentences? Extracts few and many full blocks of a tiny random model.

    python -m benchmarks.parts.memory [--quick] [--few 2] [--many 100] [--block 32768] [--out FILE]

Each run is `drillcore extract` in a fresh process, from text file to store; its peak is what the system counted when
it ended. Exit status 1 where the larger run's peak is 10 % or more above the smaller one's. Until both are measured
nothing but the standard library is imported, since a process begins with the peak of the one that started it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import DRILLCORE, child_peak, make_parser, parse, scratch_folder, write_results

QUICK = {"few": 2, "many": 4, "block": 1024}
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


def measure(folder: Path, num_blocks: int, block: int) -> dict[str, Any]:
    """Peak memory of extracting so many full blocks."""
    name = f"blocks-{num_blocks}"
    write_texts(folder / f"{name}.txt", num_blocks * block)
    job = write_job(folder, name, block)
    peak, seconds = child_peak([*DRILLCORE, "extract", str(job)], folder)
    return {"blocks": num_blocks, "sentences": num_blocks * block, "peak_bytes": peak, "seconds": seconds}


def main() -> int:
    """Measure both, print, judge."""
    parser = make_parser(__doc__, quick="two blocks against four small ones")
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=100)
    parser.add_argument("--block", type=int, default=32_768, help="sentences of a block, a power of two")
    options = parse(parser, QUICK)
    with scratch_folder(options, "memory") as folder:
        child_peak([sys.executable, "-c", MAKE_MODEL, str(folder / "model")], folder)
        runs = [measure(folder, n, options.block) for n in (options.few, options.many)]
    growth = runs[1]["peak_bytes"] / runs[0]["peak_bytes"]
    for run in runs:
        print(
            f"{run['blocks']:>4} blocks, {run['sentences']:>10,} sentences: peak {run['peak_bytes'] / 2**20:,.1f} MiB, "
            f"{run['seconds']:.1f} s"
        )
    met = growth < LIMIT
    print(f"the larger takes {growth:.3f} times the memory (limit {LIMIT:g}): {'met' if met else 'not met'}")
    write_results("memory", options, {"runs": runs, "growth": growth, "met": met})
    return 0 if met or options.quick else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as failure:
        print(f"memory.py: {failure}", file=sys.stderr)
        sys.exit(2)
