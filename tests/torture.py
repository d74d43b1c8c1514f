"""Hundreds of kills at random moments, the long form of `end_to_end/test_crash.py`: run by `make torture`.

DRILLCORE_KILLS sets how many (default 300), of which a tenth hit the real backend and a hundredth the real model.
"""

from __future__ import annotations

import os
import random

import pytest

from support.crashes import Lives

pytest_plugins = ["support.run_fixtures"]
KILLS = int(os.environ.get("DRILLCORE_KILLS", "300"))


@pytest.mark.parametrize(
    ("backend", "kills", "count"), [("fake", KILLS * 9 // 10, 300), ("transformers", max(1, KILLS // 10), 96)]
)
def test_killed_again_and_again(backend, kills, count, new_work, seed):
    lives = Lives(new_work, backend, random.Random(seed), count)
    lives.kill(kills)
    print(lives)
    assert lives.kills == kills


def test_the_real_model_is_killed(new_work, seed):
    def on_the_demo_model(name, **options):
        work = new_work(name, **options)
        work.job["models"] = [{"id": "demo/smollm2-135m-instruct", "as": "m"}]
        work.save()
        return work

    lives = Lives(on_the_demo_model, "transformers", random.Random(seed), 64)
    lives.kill(max(3, KILLS // 100))
    print(lives)
