"""A backend that a user adds: one file and one row; the contract holds, and a job runs on it from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from backend_contract import BackendContract

import drillcore
from drillcore import backends
from drillcore.api import doctor
from drillcore.backends.layers import resolve_layers
from drillcore.backends.source import locate
from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.system import tables
from drillcore.tokens.sequences import Sequences
from support.plain import relative_error

TOY = '''
"""A recurrent model: a token adds its embedding to half of what was there; layer k is tanh((k + 1) times that)."""

import numpy as np

from drillcore.backends.base import Prepared, SelfCheck, States, Work
from drillcore.errors import JobError
from drillcore.system.versions import installed_versions


def check(source, extract):
    if extract.tensor_parallel > 1:
        raise JobError("extract.tensor_parallel does not go with backend toy", hint="Leave it out.")


def versions():
    return installed_versions(["numpy"])


class ToyBackend:
    def __init__(self, source, extract, layers):
        self.facts, self._layers = source.facts, np.array(layers)
        draw = np.random.default_rng(0)
        self._embedding_VH = draw.normal(size=(source.facts.vocab_size, source.facts.hidden_size))

    def prepare(self, sample, stored):
        return Prepared(stored or {"layout": "toy", **versions()}, SelfCheck("toy", 0.0, {}, 0), 0.0)

    def lay_out(self, block):
        """Sentences of one length together, the longest first."""
        parts = []
        for length in sorted(set(block.lengths_N.tolist()), reverse=True):
            sentence_S = np.flatnonzero(block.lengths_N == length)
            parts.append((sentence_S, np.stack([block[i] for i in sentence_S])))
        return Work(len(block), len(block.ids_T), 0, parts)

    def run(self, work):
        for sentence_S, ids_ST in work.parts:
            memory_SH = np.zeros((len(ids_ST), self._embedding_VH.shape[1]))
            for ids_S in ids_ST.T:
                memory_SH = 0.5 * memory_SH + self._embedding_VH[ids_S]
            values_SKH = np.tanh(memory_SH[:, None] * (self._layers[:, None] + 1)).astype(np.float32)
            rows_S = np.arange(len(ids_ST))
            yield States(values_SKH, np.abs(values_SKH).max(-1), sentence_S, rows_S, ids_ST.size, 0)

    def unembed(self, states_GH):
        return (states_GH @ self._embedding_VH.T).astype(np.float32)

    def close(self):
        pass
'''


def plain_toy(ids: np.ndarray, facts) -> np.ndarray:
    """States [L + 2, H] of one sentence in closed form: the weights of its tokens fall by half towards the front."""
    embedding_VH = np.random.default_rng(0).normal(size=(facts.vocab_size, facts.hidden_size))
    memory_H = 0.5 ** np.arange(len(ids))[::-1] @ embedding_VH[ids]
    return np.tanh(memory_H * np.arange(1, facts.num_layers + 3)[:, None])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file and the row."""
    (tmp_path / "toy_backend.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backends.BACKENDS, "toy", backends.BackendRow("toy_backend:ToyBackend", "toy_backend", "toy"))
    tables.BACKENDS.append("toy")
    yield "toy"
    tables.BACKENDS.remove("toy")


@pytest.fixture
def source(models):
    return locate(Model(id=str(models())), Path("/"))


class TestABackendThatIsAdded(BackendContract):
    @pytest.fixture
    def opened(self, toy, source):
        def get(wanted):
            layers = resolve_layers(wanted, source.facts.num_layers)
            backend = backends.load_backend(toy, source, Extract(backend=toy), layers)
            backend.prepare(Sequences.of([]), None)
            return backend, lambda ids: plain_toy(ids, source.facts)

        return get


def test_a_job_runs_on_it(toy, models, source):
    from transformers import AutoTokenizer

    texts = ["one sentence", "one sentence more", "another"]
    dataset = drillcore.extract(str(models()), texts, backend=toy, special_tokens="none")
    tokenizer = AutoTokenizer.from_pretrained(models())
    ids = [np.array(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    want = np.stack([plain_toy(one, source.facts) for one in ids])
    assert relative_error(dataset["hidden_states"].to_numpy(), want).max() <= 1e-5


def test_its_own_refusal_comes_before_anything_is_loaded(toy, models):
    with pytest.raises(JobError, match="does not go with backend toy"):
        drillcore.extract(str(models()), ["one"], backend=toy, tensor_parallel=2)


def test_doctor_and_versions_ask_it(toy):
    (part,) = (p for p in doctor.parts() if p.name == toy)
    assert part.present and part.detail == f"numpy {np.__version__}"
    assert backends.all_versions()["numpy"] == np.__version__
    assert backends.numerics_hold(toy, {"layout": "toy", toy: np.__version__})
    assert not backends.numerics_hold(toy, {"layout": "toy", toy: "0.1"})


def test_an_unknown_backend_is_named_with_the_known_ones(source):
    for ask in (
        lambda: backends.check_backend("tyo", source, Extract()),
        lambda: backends.versions_of("tyo"),
        lambda: backends.load_backend("tyo", source, Extract(), (0,)),
    ):
        with pytest.raises(JobError, match="backend tyo is unknown") as caught:
            ask()
        assert "transformers" in caught.value.hint
