"""A store whose tokens would be others today is refused, and right once it is overwritten."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import pytest
import yaml
import zarr

import drillcore
from drillcore.errors import StoreError
from drillcore.job.file import load_job
from drillcore.runtime.preflight import check_job
from drillcore.runtime.runner import run_stages
from drillcore.system.files import digest
from drillcore.system.progress import Silent
from support import vocabularies
from support.records import as_written

TEXTS = ["She moved to", "the old port </s> of", "A river runs near"]
DATED = "{{ messages[0]['content'] }} {{ date_string if date_string is defined else strftime_now('%d') }}"


@pytest.fixture
def loaded(models, tmp_path):
    """A job on one model, whose tokenizer lies in `model`; by the dataset's further fields."""
    shutil.copytree(models(), tmp_path / "model")
    vocabularies.write(tmp_path / "model", "bytes", chat_template=DATED)
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS), encoding="utf-8")

    def load(**dataset):
        datasets = [{"name": "d", "path": "d.jsonl", **dataset}]
        job = {"store": "s.zarr", "models": [{"id": "./model", "as": "m"}], "datasets": datasets}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
        return load_job(tmp_path / "job.yaml")

    return load


def on(day: int, monkeypatch) -> None:
    from transformers.utils import chat_template_utils

    class Fixed(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, day)

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)


def last_tokens(loaded) -> list[int]:
    return drillcore.open(loaded.store)["m/d"].last_token_id.values.tolist()


def test_todays_date_in_a_chat_template(loaded, monkeypatch, tmp_path):
    from transformers import AutoTokenizer

    job, tokenizer = loaded(template="chat"), AutoTokenizer.from_pretrained(tmp_path / "model")
    on(5, monkeypatch)
    run_stages(job, ("extract",), Silent())
    assert last_tokens(job) == [tokenizer("5")["input_ids"][-1]] * 3
    on(6, monkeypatch)
    with pytest.raises(StoreError, match="the tokens of some sentences differ"):
        run_stages(job, ("extract",), Silent())
    run_stages(job, ("extract",), Silent(), overwrite=True)
    # As many tokens as before, and others.
    assert last_tokens(job) == [tokenizer("6")["input_ids"][-1]] * 3
    fixed = loaded(template="chat", chat={"date_string": "06"})
    on(7, monkeypatch)
    run_stages(fixed, ("extract",), Silent())
    assert last_tokens(fixed) == last_tokens(job)


def test_another_setting_of_the_tokenizer_is_a_change_only_where_it_changes_tokens(loaded, tmp_path):
    job, path = loaded(), tmp_path / "model" / "tokenizer_config.json"
    run_stages(job, ("extract",), Silent())
    shard = tmp_path / "s.zarr" / "m" / "d" / "hidden_states" / "c" / "0" / "0" / "0"
    written = shard.stat().st_mtime_ns
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": "another"}))
    run_stages(job, ("extract",), Silent())
    assert shard.stat().st_mtime_ns == written
    path.write_text(json.dumps({**config, "split_special_tokens": True}))
    with pytest.raises(StoreError, match="tokens of some sentences differ"):
        run_stages(job, ("extract",), Silent())


def test_columns_of_an_older_version_stay_where_they_are_right(loaded, tmp_path):
    job, path = loaded(), tmp_path / "s.zarr" / "m" / "d" / "zarr.json"
    run_stages(job, ("extract",), Silent())
    pair = check_job(job, Silent()).pairs[0]
    # The older recipe left the tokens out.
    policy = [pair.policy.tokenizer, pair.policy.template, pair.policy.special_tokens]
    former = digest([pair.rows.digest, *policy, len(pair.tokens.ids_T)])
    for wrong in (False, True):
        group = zarr.open_group(tmp_path / "s.zarr", path="m/d", mode="r+")
        group.attrs["columns_made_from"] = former
        right = group["last_token_id"][:]
        if wrong:
            group["last_token_id"][:] = 7
        as_written(tmp_path / "s.zarr")
        run_stages(job, ("extract",), Silent())
        now = json.loads(path.read_text())["attributes"]["columns_made_from"]
        assert (now != former) == wrong
        assert (zarr.open_group(tmp_path / "s.zarr", path="m/d", mode="r")["last_token_id"][:] == right).all()
