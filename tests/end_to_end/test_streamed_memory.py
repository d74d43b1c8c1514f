"""A model of 6 GB in a process that may have 2 GB (RLIMIT_DATA): the states are those without that limit."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import drillcore
from support.runs import sentences
from support.tiny import write_tokenizer

LIMIT = 2 * 10**9
# The published configuration of GPT-2 XL: 1.56 billion parameters.
GPT2_XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25}

RUN = """
import sys
import drillcore
from drillcore.system.machine import peak_memory_bytes
drillcore.run(sys.argv[1], stages=["extract"])
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("peak", peak_memory_bytes(), "anonymous at the end", int(fields["RssAnon"].split()[0]) * 1024)
"""


def write_random_model(folder: Path, **config: int) -> int:
    """Write a model with random weights, a file for each layer, so that it is never in memory as a whole; its bytes."""
    from accelerate import init_empty_weights
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    settings = AutoConfig.for_model("gpt2", bos_token_id=1, eos_token_id=2, **config)
    settings.architectures = ["GPT2LMHeadModel"]
    settings.save_pretrained(folder)
    write_tokenizer(folder)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(settings)
    draw, parts = torch.Generator().manual_seed(0), dict[str, dict[str, torch.Tensor]]()
    total, where = 0, {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        part = f"model-{'.'.join(name.split('.')[:3]) if '.h.' in name else 'rest'}.safetensors"
        parts.setdefault(part, {})[name] = tensor
    for part, tensors in parts.items():
        values = {}
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=draw) * 0.02
            values[name] = noise + 1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) else noise
            total += values[name].nbytes
            where[name] = part
        save_file(values, folder / part, metadata={"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_model_larger_than_the_memory_that_is_allowed(tmp_path):
    size = write_random_model(tmp_path / "model", **GPT2_XL)
    assert size > 6 * 10**9
    rows = [json.dumps({"text": row["text"]}) for row in sentences(0, 6)]
    (tmp_path / "d.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = {}
    for name, limit in (("limited", LIMIT), ("unlimited", None)):
        job = {
            "store": f"{name}.zarr",
            "models": [{"id": "./model", "as": "m"}],
            "datasets": {"d": "d.jsonl"},
            # Fewer sentences for the checks: each of them is 3 billion operations a token.
            "extract": {"weights": "streamed" if limit else "resident", "threads": 2, "layout": "padded"},
            "run": {"audit": 0},
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(job), encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "-c", RUN, f"{name}.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))) if limit else None,
        )
        print(name, run.stdout, run.stderr[-2000:])
        assert run.returncode == 0, run.stderr
        found[name] = np.asarray(drillcore.open(tmp_path / f"{name}.zarr")["m/d"]["hidden_states"])
    np.testing.assert_array_equal(found["limited"], found["unlimited"])
