"""The peers as processes that live through a run, so that they can be measured in turn with everything else.

A peer that cannot be installed, imported or run is absent, with the reason; it stays in the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.common import ROOT
from benchmarks.peers.workload import Text

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"

# name -> adapter in adapters/, interpreter, and what makes its environment.
PEERS: dict[str, tuple[str, Path, str]] = {
    "hf_loop": ("hf_loop", Path(sys.executable), "make install"),
    "hf_padded": ("hf_padded", Path(sys.executable), "make install"),
    "transformer_lens": ("lens", PEERS_PYTHON, "make bench-peers"),
    "nnsight": ("nnsight_trace", PEERS_PYTHON, "make bench-peers"),
    "vllm_bare": ("vllm_bare", VLLM_PYTHON, "make vllm"),
    "drillcore_vllm": ("drillcore_vllm", VLLM_PYTHON, "make vllm"),
}
WARM_SENTENCES = 32


class AbsentError(Exception):
    """The peer cannot be started, or has ended."""


def environment(python: Path, threads: int, scratch: Path) -> dict[str, str]:
    """Variables for a peer: as many threads as all others, no hub, and what vLLM needs on a CPU."""
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "DRILLCORE_BENCH_SCRATCH": str(scratch),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if python == VLLM_PYTHON:
        variables |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
        openmp = python.parent.parent / "lib" / "libiomp5.so"
        if openmp.exists():
            variables["LD_PRELOAD"] = str(openmp)
    return variables


class Peer:
    """One peer: started once, asked as often as wanted."""

    def __init__(self, name: str, model: str, threads: int, dtype: str, scratch: Path) -> None:
        self.name, self.facts = name, dict[str, Any]()
        self._model, self._threads, self._dtype, self._scratch = model, threads, dtype, scratch
        self._log = scratch / f"{name}.log"
        self._adapter, self._python, self._made_by = PEERS[name]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Load the model; raises AbsentError."""
        if not self._python.exists():
            raise AbsentError(f"not installed ({self._made_by})")
        arguments = ["--model", self._model, "--threads", str(self._threads), "--dtype", self._dtype]
        self._launch(["serve.py", self._adapter, *arguments])
        self.facts = self._read("load_seconds", "absent")
        if "absent" in self.facts:
            raise AbsentError(self.facts["absent"])

    def measure(self, text: Text, states: Path | None = None) -> float:
        """Seconds for a text; the states of its checked sentences go to `states`. Raises AbsentError."""
        request = {"tokens": str(text.tokens_file), "check": text.checked, "states": states and str(states)}
        self._write(json.dumps(request))
        answer = self._read("seconds", "failed")
        if "failed" in answer:
            raise AbsentError(answer["failed"])
        return float(answer["seconds"])

    def warm(self, text: Text) -> None:
        """A first pass over some sentences, not counted. Raises AbsentError."""
        self.measure(text.head(WARM_SENTENCES, self._scratch))

    def states(self, text: Text, written: Path) -> tuple[list[int], Any]:
        """The states that it wrote: which of the checked sentences, and their states; none where it wrote none."""
        return (list(range(len(text.checked))), np.load(written)) if written.exists() else ([], None)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def _launch(self, arguments: list[str]) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._python), *arguments],
                cwd=HERE / "adapters",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(self._python, self._threads, self._scratch),
            )

    def _write(self, line: str) -> None:
        stream: IO[str] | None = self._process.stdin if self._process else None
        if stream is None:
            raise AbsentError("its process is not running")
        with contextlib.suppress(BrokenPipeError):
            stream.write(line + "\n")
            stream.flush()

    def _read(self, *wanted: str) -> dict[str, Any]:
        """The next answer that holds one of the wanted keys; other output is skipped."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and any(key in answer for key in wanted):
                    return answer
        raise AbsentError(f"its process ended: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"


class VllmBare(Peer):
    """vLLM driven by a script of its own, which takes the sentences when it starts: a process for each text.

    With --serve it measures once for each line that it reads; without, all at once, not in turn with the others.
    """

    def start(self) -> None:
        """See that it is installed; raises AbsentError."""
        self._text = ""
        script = HERE / "adapters" / "vllm_bare.py"
        if not script.exists() or not self._python.exists():
            raise AbsentError(f"not installed ({self._made_by})")
        self._serves = "--serve" in script.read_text(encoding="utf-8")
        self.facts["versions"] = _versions(self._python, ("vllm", "vllm-cpu", "torch", "transformers"))

    def warm(self, text: Text) -> None:
        """Start it on this text, and let it run once."""
        self.close()
        self._text = text.name
        self._out = self._scratch / f"{self.name}-{text.name}.json"
        self._first = self._scratch / f"{self.name}-{text.name}-first.npy"
        arguments = ["vllm_bare.py", "--model", self._model, "--tokens", str(text.tokens_file)]
        arguments += ["--out", str(self._out), "--states", str(self._first), "--dtype", self._dtype]
        self._launch([*arguments, "--repeat", "1", "--serve"] if self._serves else [*arguments, "--repeat", "4"])
        if self._serves:
            self.measure(text)
        else:
            assert self._process is not None
            self._process.wait()
            self._left = self._times()[1:]
            self.facts["in_turn"] = False

    def measure(self, text: Text, states: Path | None = None) -> float:
        """Seconds for the text that it was started with."""
        if not self._serves:
            self._left.append(self._left.pop(0))
            return self._left[-1]
        self._write("go")
        return float(self._read("seconds")["seconds"])

    def states(self, text: Text, written: Path) -> tuple[list[int], Any]:
        """Of the first sentences, which is what it writes."""
        if not self._first.exists():
            return [], None
        first = np.load(self._first)
        slots = [slot for slot, i in enumerate(text.checked) if i < len(first)]
        return slots, first[[text.checked[slot] for slot in slots]]

    def _times(self) -> list[float]:
        try:
            results = json.loads(self._out.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise AbsentError(f"its process ended: {self._last_words()}") from None
        return [float(s) for s in results["seconds"]]


def _versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of what is installed in another environment."""
    code = "import json, sys, serve; print(json.dumps(serve.versions(tuple(sys.argv[1:]))))"
    done = subprocess.run(
        [str(python), "-c", code, *packages], cwd=HERE / "adapters", capture_output=True, text=True, check=False
    )
    installed: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return installed
