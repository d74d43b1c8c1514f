"""Adapters of peft for tiny models, trained on nothing: their weights are drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM

LORA = {"r": 4, "target_modules": ["q_proj", "up_proj", "down_proj"]}


def write_adapter(base: Path, folder: Path, seed: int, kind: str = "LORA", **settings: Any) -> Path:
    """An adapter that changes states; its folder."""
    torch.manual_seed(seed)
    chosen = {**(LORA if kind == "LORA" else {}), **settings}
    config = peft.get_peft_config({"peft_type": kind, "task_type": "CAUSAL_LM", **chosen})
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def with_peft(base: Path, adapter: Path, **settings: Any) -> Any:
    """The model with its adapter as a user of peft has it, to run one sentence at a time."""
    model = AutoModelForCausalLM.from_pretrained(base, **settings)
    return peft.PeftModel.from_pretrained(model, adapter).get_base_model().eval()
