"""A merged adapter, a dataset and its branch on real vLLM: the states are those of peft, one sentence at a time.

Runs in vLLM's own environment (make test-vllm).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

import drillcore
from support.plain import plain_states, relative_error

pytest_plugins = ["support.vllm_fixtures"]
pytestmark = pytest.mark.usefixtures("installed_vllm")
TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "Hello"]


def test_a_merged_adapter_and_a_branch(tiny, tmp_path, seed):
    pytest.importorskip("peft")
    from support.adapters import with_peft, write_adapter

    base = tiny("llama")
    adapter = write_adapter(base, tmp_path / "lora", seed)
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS), encoding="utf-8")
    drillcore.run(
        {
            "store": str(tmp_path / "job.zarr"),
            "models": [{"id": str(base), "adapter": str(adapter), "merge_adapter": True, "as": "m"}],
            "datasets": [{"name": "d", "path": str(tmp_path / "d.jsonl"), "branches": {"q": "{text} What?"}}],
            "extract": {"backend": "vllm", "dtype": "float32", "batch_tokens": 128, "threads": 2},
        },
        stages=["extract"],
    )
    store, model = drillcore.open(tmp_path / "job.zarr"), with_peft(base, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for group, ending in (("m/d", ""), ("m/d~q", " What?")):
        wanted = np.stack([plain_states(model, tokenizer(text + ending)["input_ids"], 3) for text in TEXTS])
        assert relative_error(np.asarray(store[group].hidden_states.values, np.float64), wanted).max() < 1e-4
