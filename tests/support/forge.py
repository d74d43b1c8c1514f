"""A process that has imported everything and forks a `drillcore` command whenever it is asked to.

Each command is a process of its own, in a process group of its own; what is saved is the seconds of importing. Nothing
here has started a thread before it forks.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path


def import_all(model: str) -> None:
    """What a run imports, so that its forks need not."""
    import obstore.store  # noqa: F401
    import torch
    import xarray  # noqa: F401
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    import drillcore.backends.fake
    import drillcore.backends.transformers.backend
    import drillcore.cli.display
    import drillcore.cli.main
    import drillcore.runtime.executors.local
    import drillcore.runtime.runner
    import drillcore.runtime.stages.extract.stage
    import drillcore.store.places.lease
    import drillcore.store.tree  # noqa: F401

    torch.set_num_threads(1)
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    AutoTokenizer.from_pretrained(model)


def command(asked: dict) -> None:
    """Be the command: does not return."""
    # Tests that a script runs in the background are started with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["cwd"])
    os.environ.update(asked["env"])
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
    sys.argv = ["drillcore", *asked["argv"]]
    exec(asked["first"], {"READY": Path(asked["ready"])})
    status: object = 0
    try:
        import drillcore.cli.main

        drillcore.cli.main.main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # As the interpreter ends, but for taking down every module, which costs more than the command.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def wait(pid: int, seconds: float) -> int | None:
    """Exit status of a command, negative where a signal ended it; None where it runs on."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


def main() -> None:
    import_all(sys.argv[1])
    gc.freeze()  # a collection in a fork would copy every page
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(json.dumps({"status": wait(asked["wait"], asked["seconds"])}), flush=True)
            continue
        pid = os.fork()
        # Both sides, as a shell does: whoever is told of the process may signal its group at once.
        os.setpgid(pid, pid)
        if pid == 0:
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)
            command(asked)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
