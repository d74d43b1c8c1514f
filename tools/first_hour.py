"""Records a stranger's first hour: a wheel, a CSV file, two models, a report, a third model, an interruption.

    python -m tools.first_hour dist/drillcore-*.whl    # installs it into a clean environment, writes docs/first-hour.md

Every command is run, in a folder of its own, and what it prints is what the page shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "first-hour.md"
DEMO = "demo/smollm2-135m-instruct"
# Lines of a command's output that are shown.
SHOWN = 30
# Seconds after which a command that should have said something counts as hanging.
PATIENCE = 3000
HEAD = """\
# A first hour, recorded

From the wheel to a second store, on a machine with two CPU cores. `python -m tools.first_hour` runs every command and
writes this page; a test runs the same commands with tiny models. Lines that begin with `$` are typed, the others are
printed; long output is cut where it says `[...]`.
"""
MARK = "<!-- not run: recorded; tests/docs/test_first_hour.py runs these commands with tiny models -->"
MAKE_CSV = """\
import csv, random

films = ["the western", "that comedy", "the musical", "this thriller", "the sequel", "his debut", "her last film",
         "the documentary", "that remake", "the heist film"]
words = {"good": ["moving", "clever", "a delight", "well paced", "beautifully shot"],
         "bad": ["dull", "a mess", "far too long", "badly lit", "a waste of time"]}
ways = ["I found {} {}", "We all agreed that {} was {}", "To be honest, {} is {}", "Everyone says {} is {}"]
every = [(way.format(film, word), opinion, film)
         for opinion in words for word in words[opinion] for way in ways for film in films]
with open("reviews.csv", "w", newline="") as file:
    csv.writer(file).writerows([("sentence", "opinion", "film"), *random.Random(0).sample(every, 200)])
"""
COPY = """\
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
model.save_pretrained("my-model")
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained("my-model")
"""
OPEN = """\
import drillcore

tree = drillcore.open("runs/reviews.zarr")
reviews = tree["my-model/reviews"]
states = reviews.hidden_states.sel(layer_name="final_norm")
print(states.shape, reviews.label.values[:2], reviews.text.values[0])
probe = drillcore.measure("runs/reviews.zarr", "my-model/reviews").to_pandas().query("metric == 'probe'")
print(probe.loc[probe["value"].idxmax()])
"""


@dataclass
class Step:
    """One command and what came of it.

    output: both streams, in the order of their lines. status: as a shell has it. title, note: of the section that it
    begins, empty within one.
    """

    command: str
    output: str
    status: int
    title: str = ""
    note: str = ""


class Recorder:
    """Runs commands in a folder, with the programs of `bin` first, and keeps what they print."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self._section = ("", "")
        path = os.pathsep.join((str(bin), os.environ.get("PATH", "")))
        left_out = ("PYTHONPATH", "PYTHONHOME")
        kept = {k: v for k, v in os.environ.items() if k not in left_out}
        self._environment = {**kept, "PATH": path, "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}

    def run(self, command: str, *, interrupt_at: str = "") -> Step:
        """Run a command; interrupted, as by Ctrl-C, once a line of it begins with `interrupt_at`."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if interrupt_at else command],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Where this program runs in the background, its children would pass over Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout is not None
        lines, until = list[str](), time.monotonic() + PATIENCE
        for line in process.stdout:
            lines.append(line)
            if interrupt_at and line.startswith(interrupt_at):
                process.send_signal(signal.SIGINT)
                lines.append("^C\n")
                interrupt_at = ""
            if time.monotonic() > until:
                process.kill()
        process.stdout.close()
        return self._add(command, "".join(lines), process.wait())

    def begin(self, title: str, note: str = "") -> None:
        """The next command begins a section."""
        self._section = (title, note)

    def _add(self, command: str, output: str, status: int) -> Step:
        step, self._section = Step(command, output, status, *self._section), ("", "")
        self.steps.append(step)
        return step

    def write(self, name: str, text: str) -> None:
        """Write a file, as an editor would."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self._add(f"cat {name}", text, 0)


def record(folder: Path, bin: Path, model: str = DEMO, where: str = "$(drillcore demo-model)") -> Recorder:
    """Everything after the installation. model: the first one; where: its folder, as a shell finds it."""
    say = Recorder(folder, bin)
    say.begin("A CSV file of 200 rows")
    say.run("drillcore --version")
    say.write("make_csv.py", MAKE_CSV)
    say.run("python make_csv.py && head -4 reviews.csv")
    say.begin("A second model", "Any folder that `save_pretrained` wrote will do; here the demo model in bfloat16.")
    say.write("copy_model.py", COPY)
    say.run(f"python copy_model.py {where} && ls my-model")
    say.begin("A job")
    say.run(f"drillcore init reviews.csv --model {model} --model ./my-model")
    say.run("cat reviews.yaml")
    say.run("drillcore plan reviews.yaml")
    say.begin("Run it")
    say.run("drillcore run reviews.yaml")
    say.begin("The report, the store, and the states in Python")
    say.run("ls runs/reviews runs/reviews/pictures")
    say.run("drillcore show runs/reviews.zarr")
    say.write("look.py", OPEN)
    say.run("python look.py")
    say.begin("Another model: only it runs", "A control: the same architecture with random weights.")
    control = f"  - {{id: {model}, as: random-weights, random_weights: true}}"
    say.run(f"sed -i 's|^datasets:|{control}\\n&|' reviews.yaml && grep -A 4 ^models reviews.yaml")
    say.run("drillcore run reviews.yaml")
    say.begin(
        "Interrupted, and resumed", "Into another store, so that there is something to do. Ctrl-C ends the first run."
    )
    say.run("drillcore run reviews.yaml --store runs/second.zarr", interrupt_at="project ")
    say.run("drillcore run reviews.yaml --store runs/second.zarr")
    say.run("drillcore verify runs/second.zarr")
    return say


def page(steps: list[Step]) -> str:
    """The page of a recording."""
    parts = [HEAD]
    for step in steps:
        if step.title:
            parts.append(f"## {step.title}\n" + (f"\n{step.note}\n" if step.note else ""))
        parts.append(_block(step))
    return "\n".join(parts)


def _block(step: Step) -> str:
    lines = step.output.rstrip("\n").split("\n") if step.output.strip() else []
    if len(lines) > SHOWN and not step.command.startswith("cat "):
        lines = [*lines[: SHOWN // 2], "[...]", *lines[-SHOWN // 2 :]]
    status = [f"[exit status {step.status}]"] if step.status else []
    return f"{MARK}\n```text\n" + "\n".join([f"$ {step.command}", *lines, *status]) + "\n```\n"


def main() -> int:
    """Install a wheel into a clean environment, record, and write the page."""
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "films"
        folder.mkdir()
        (folder / wheel.name).symlink_to(wheel)
        install = Recorder(folder, Path(sys.executable).parent)
        install.begin("Install")
        install.run("python3 -m venv env")
        install.run(f"env/bin/pip install -qq torch==2.13.0 './{wheel.name}[all]'")
        steps = [*install.steps, Step("source env/bin/activate", "", 0)]
        recorded = record(folder, folder / "env" / "bin")
        text = page([*steps, *recorded.steps]).replace(str(folder), "~/films").replace(scratch, "~")
    PAGE.write_text(text, encoding="utf-8")
    failed = [s.command for s in [*install.steps, *recorded.steps] if s.status not in (0, 130)]
    print(f"wrote {PAGE}" + (f"; failed: {failed}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
