"""Each field of a model and of `extract` runs with vLLM or is refused by its name; a new field needs a decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from drillcore.backends.base import States
from drillcore.backends.fake import FakeBackend
from drillcore.backends.source import locate
from drillcore.backends.vllm.backend import _must_be_written
from drillcore.backends.vllm.prompts import by_group
from drillcore.backends.vllm.reference import Reference
from drillcore.backends.vllm.refusals import EXTRACT_FIELDS, MODEL_FIELDS, refuse
from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.places import Among
from drillcore.tokens.sequences import Sequences
from support.adapters import with_peft, write_adapter
from support.checkpoints import copied
from support.ggufs import write_gguf
from support.plain import plain_states, relative_error

PAGE = Path(__file__).parents[3] / "docs" / "vllm.md"
# A value of each field that is refused, beside what else it needs.
REFUSED: dict[str, dict[str, Any]] = {
    "device_map": {"device_map": "auto"},
    "offload": {"offload": True, "device_map": "auto"},
    "adapter": {"adapter": "lora"},
    "gguf_file": {"gguf_file": "m.gguf"},
    "quantization": {"quantization": "bitsandbytes-8bit"},
}
REFUSED_OF_EXTRACT = {"layout": "padded", "attention": "dense", "compile": "on", "merge": "on", "weights": "streamed"}


@pytest.fixture
def base(models, tmp_path, seed) -> Path:
    folder = copied(models(), tmp_path / "base")
    write_gguf(models(), folder / "m.gguf", "Q8_0")
    return folder


def found(base: Path, **fields: Any) -> Any:
    if "adapter" in fields:
        fields["adapter"] = str(write_adapter(base, base.parent / "lora", 0))
    return locate(Model(id=str(base), **fields), Path("/"))


def test_every_field_is_decided():
    assert set(MODEL_FIELDS) == set(Model.model_fields), "say in refusals.py what vLLM makes of the field"
    assert set(EXTRACT_FIELDS) == set(Extract.model_fields), "say in refusals.py what vLLM makes of the field"
    assert set(REFUSED) == {name for name, reason in MODEL_FIELDS.items() if reason}
    assert set(REFUSED_OF_EXTRACT) == {name for name, reason in EXTRACT_FIELDS.items() if reason}


def test_every_field_is_in_the_table_of_the_page():
    page = PAGE.read_text(encoding="utf-8")
    rows = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    for part in (Model, Extract):
        for name, field in part.model_fields.items():
            assert f"`{field.alias or name}`" in rows, f"{name} has no row in docs/vllm.md"


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_of_a_model_that_vllm_cannot_take_is_refused(name, base):
    # A spread model is refused for that first, which `offload` needs.
    said = "device_map" if name == "offload" else name
    with pytest.raises(JobError, match=f"{said}.* does not go with backend vllm: ") as refused:
        refuse(found(base, **REFUSED[name]), Extract())
    assert refused.value.exit_status == 2 and refused.value.hint


@pytest.mark.parametrize("name", REFUSED_OF_EXTRACT)
def test_a_field_of_extract_that_vllm_cannot_take_is_refused(name, base):
    with pytest.raises(JobError, match=rf"extract\.{name} does not go with backend vllm: "):
        refuse(found(base), Extract(**{name: REFUSED_OF_EXTRACT[name]}))


def test_what_is_off_is_not_refused(base):
    refuse(found(base), Extract(compile="off", merge="off"))
    refuse(found(base, tokenizer=str(base), dtype="bfloat16"), Extract(tensor_parallel=2))


def test_a_merged_adapter_is_written_for_the_engine(base, tmp_path):
    """vLLM reads files: those hold the adapter's sums, and are the model that transformers runs."""
    source = found(base, adapter="lora", merge_adapter=True)
    refuse(source, Extract())
    assert _must_be_written(source)
    text = "The capital of France is"
    ids = AutoTokenizer.from_pretrained(base)(text)["input_ids"]
    Reference(source, Extract(device="cpu", threads=1), range(5), Sequences.of([ids]), tmp_path / "written")
    assert not list((tmp_path / "written").glob("adapter*"))
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "written")
    wanted = plain_states(with_peft(base, base.parent / "lora"), ids, 3)
    assert relative_error(plain_states(written, ids, 3), wanted).max() < 1e-5


def test_states_of_a_dataset_and_its_branches_go_to_their_groups(base, seed):
    """An engine answers sentence by sentence; each group gets its own rows, as from a backend that knows of groups."""
    draw = np.random.default_rng(seed)
    sets = [Sequences.of([draw.integers(0, 99, draw.integers(1, 6)) for _ in range(n)]) for n in (7, 4)]
    block = Sequences.join(sets)
    places = tuple(Among(s, None, before, len(block)).now() for s, before in zip(sets, (0, 7), strict=True))
    backend = FakeBackend(found(base), Extract(backend="fake"), range(5))
    plain, grouped = backend.lay_out(block), replace(backend.lay_out(block), places=places)
    ours = rows_of((s for states in backend.run(plain) for s in by_group(states, places)), sets)
    theirs = rows_of(backend.run(grouped), sets)
    for one, other in zip(ours, theirs, strict=True):
        assert not np.isnan(one).any() and np.array_equal(one, other)
    assert next(s for states in backend.run(plain) for s in by_group(states, ())).group == 0


def rows_of(states: Iterable[States], sets: list[Sequences]) -> list[np.ndarray]:
    """The rows of each group, from states in any order."""
    rows = [np.full((len(s), 5, 32), np.nan, np.float32) for s in sets]
    for part in states:
        rows[part.group][part.sentence_S] = part.values_GKH[part.row_S]
    return rows
