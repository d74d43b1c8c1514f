"""What is said of a model that cannot be had: each with its remedy, and none in the words of the hub's client."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils import hub

from drillcore.backends.source import locate
from drillcore.errors import ModelError
from drillcore.job.model import Model
from support.words import LIBRARY_WORDS


def refusal(model: Model, base: Path) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        locate(model, base)
    assert not [word for word in LIBRARY_WORDS if word in str(caught.value)]
    return str(caught.value), caught.value.hint


@pytest.fixture
def hub_raises(monkeypatch):
    """Makes every download end in an error of the hub's client."""

    def raises(kind):
        def download(*arguments, **named):
            response = SimpleNamespace(headers={}, request=None, status_code=401)
            raise kind("401 Client Error. (Request ID: 7)", response=response)

        for name in ("hf_hub_download", "snapshot_download"):
            monkeypatch.setattr(hub, name, download)

    return raises


def test_a_gated_model_leads_to_its_licence(hub_raises, tmp_path):
    hub_raises(GatedRepoError)
    message, hint = refusal(Model(id="org/name"), tmp_path)
    assert message == "model org/name is gated"
    assert "https://huggingface.co/org/name" in hint and "HF_TOKEN" in hint


def test_a_model_that_is_not_there(hub_raises, tmp_path):
    hub_raises(RepositoryNotFoundError)
    message, hint = refusal(Model(id="org/name"), tmp_path)
    assert message == "model org/name is not on the hub" and "HF_TOKEN" in hint and "./" in hint


def test_a_revision_that_is_not_there(hub_raises, tmp_path):
    hub_raises(RevisionNotFoundError)
    assert refusal(Model(id="org/name", revision="v9"), tmp_path)[0] == "model org/name has no revision v9"


def test_the_nearest_model_in_the_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "models--HuggingFaceTB--SmolLM2-135M").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message, _ = refusal(Model(id="HugingFaceTB/SmolLM2-135M"), tmp_path)
    assert message.endswith("did you mean `HuggingFaceTB/SmolLM2-135M`?")


def test_a_folder_beside_the_job_file_begins_with_a_dot(models, tmp_path):
    (tmp_path / "my-model").symlink_to(models())
    message, hint = refusal(Model(id="my-model"), tmp_path)
    assert message == "model my-model: there is a folder of this name beside the job file"
    assert hint.startswith("Write ./my-model for it")
    assert locate(Model(id="./my-model"), tmp_path).facts.num_layers


def test_a_folder_in_the_working_directory_is_not_taken_for_a_model(models, tmp_path, monkeypatch):
    """transformers would read it."""
    (tmp_path / "here" / "org").mkdir(parents=True)
    (tmp_path / "here" / "org" / "name").symlink_to(models())
    monkeypatch.chdir(tmp_path / "here")
    message, _ = refusal(Model(id="org/name"), tmp_path)
    assert "there is a folder of this name in the working directory" in message


def test_a_home_folder_of_nobody(tmp_path):
    message, _ = refusal(Model(id="~nobody-of-this-name/model"), tmp_path)
    assert message == "model ~nobody-of-this-name/model: this machine has no user nobody-of-this-name"
