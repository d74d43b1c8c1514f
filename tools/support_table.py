"""Tries every architecture of the installed transformers and writes docs/models.md; exits with 1 where one is wrong.

python -m tools.support_table                # everything: minutes on two cores
python -m tools.support_table llama gpt2     # some, printed only
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tools.architectures.page import counts, page
from tools.architectures.tiny import architectures
from tools.architectures.trial import Outcome, try_architecture

PAGE = Path("docs/models.md")
# An architecture that takes longer hangs.
SECONDS = 240
PRELOADED = ["torch", "transformers", "drillcore.backends.transformers.backend", "tools.architectures.trial"]


def main() -> int:
    """Run the trials, print a line each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help="model types; default: all, and write the page")
    parser.add_argument("--with-images", action="store_true", help="the named ones are image-text architectures")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    # The workers inherit it: nothing is asked of a hub.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    if wanted.kinds:
        outcomes = _try_all(context, wanted.kinds, wanted.with_images, wanted.workers)
    else:
        causal, with_images = (_try_all(context, architectures(w), w, wanted.workers) for w in (False, True))
        PAGE.write_text(page(causal, with_images, _versions()), encoding="utf-8")
        print(f"causal: {counts(causal)}\nimage-text: {counts(with_images)}\nwritten: {PAGE}")
        outcomes = [*causal, *with_images]
    return 1 if any(o.status in ("wrong", "traceback") for o in outcomes) else 0


def _try_all(context: Any, kinds: list[str], with_images: bool, workers: int) -> list[Outcome]:
    with ThreadPoolExecutor(workers) as pool:
        outcomes = []
        for outcome in pool.map(lambda kind: _apart(context, kind, with_images), kinds):
            print(f"{outcome.kind}: {outcome.status} {outcome.error:.1e} {outcome.reason[:300]}", flush=True)
            outcomes.append(outcome)
        return outcomes


def _apart(context: Any, kind: str, with_images: bool) -> Outcome:
    """One architecture in a process of its own: a crash ends that alone."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(kind, with_images, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(SECONDS):
            outcome: Outcome = receiver.recv()
            return outcome
        return Outcome(kind, "traceback", reason=f"took more than {SECONDS} s")
    except EOFError:
        process.join()
        return Outcome(kind, "traceback", reason=f"its process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _report(kind: str, with_images: bool, sender: Connection) -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    sender.send(try_architecture(kind, with_images))


def _versions() -> str:
    import torch
    import transformers

    return f"transformers {transformers.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
