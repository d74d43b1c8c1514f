"""What each command's help ends with: an example that runs, and what its exit status says."""

from __future__ import annotations

import textwrap

# By command: an example, in a folder with a job file that is run, or is not yet.
EXAMPLES = {
    "run": "drillcore run job.yaml",
    "init": "drillcore init reviews.csv --model demo/smollm2-135m-instruct",
    "demo": "drillcore demo my-demo",
    "extract": "drillcore extract job.yaml --limit 100",
    "measure": "drillcore measure job.yaml",
    "predict": "drillcore predict job.yaml",
    "project": "drillcore project job.yaml",
    "render": "drillcore render job.yaml --set render.panel_px=300",
    "append": "drillcore append job.yaml reviews new-reviews.csv",
    "plan": "drillcore plan job.yaml --no-calibrate",
    "show": "drillcore show runs/job.zarr",
    "export": "drillcore export runs/job.zarr --layer embed --to parquet --group model/reviews --out embed.parquet",
    "compare": "drillcore compare runs/job.zarr model/reviews model/questions",
    "rm": "drillcore rm runs/job.zarr model/questions",
    "push": "drillcore push runs/job.zarr hf://datasets/my-name/my-states --dry-run",
    "mv": "drillcore mv runs/job.zarr model/questions asked",
    "merge": "drillcore merge runs/job.zarr runs/more.zarr --into runs/both.zarr",
    "verify": "drillcore verify runs/job.zarr --recompute 4",
    "bench": "drillcore bench demo/smollm2-135m-instruct --out bench.json --lengths uniform:8-64 --sentences 500",
    "doctor": "drillcore doctor",
    "demo-model": "drillcore demo-model",
    "schema": "drillcore schema job > job.schema.json",
}
# What the list of commands says, where a command's help is too long for its line.
SHORT = {
    "predict": "Predict next tokens through the model's own head.",
    "append": "Add rows to a dataset, and compute those.",
    "plan": "Show sentences as encoded; estimate the cost.",
    "export": "Write one layer as a file for other tools.",
    "compare": "Compare two groups layer by layer.",
    "rm": "Remove a group from a store.",
    "push": "Put a store on the Hugging Face hub.",
    "mv": "Rename a dataset or model of a store.",
    "merge": "Make one store of several.",
    "verify": "Check a store; exit status 1 if damaged.",
    "bench": "Measure the throughput of models here.",
    "init": "Write a job file for files of texts.",
    "demo": "Write the demo and run it.",
    "demo-model": "Download the demo model; print its directory.",
}
# Characters of a line of an example.
WIDTH = 62
# Exit status 1, where it is not just that the command failed.
FAILED = {
    **dict.fromkeys(
        ("run", "extract", "measure", "predict", "project", "render", "append", "demo"),
        "failed; what was committed is kept",
    ),
    "verify": "the store is damaged",
}
# Exit status 2, where it is not about a job.
WRONG = {
    "append": "the rows or the job are wrong; nothing was written",
    "push": "wrong arguments, no finished store, or the hub refuses",
    "merge": "wrong arguments, or stores that cannot become one; nothing is written",
    **dict.fromkeys(("show", "export", "compare", "rm", "mv", "verify"), "wrong arguments, or no such store or group"),
    **dict.fromkeys(("bench", "doctor", "demo-model", "schema"), "wrong arguments"),
    "init": "wrong arguments or files; nothing was written",
}


def ending(command: str) -> str:
    """What stands below a command's options. The first line of each paragraph keeps its lines from being filled."""
    statuses = {
        0: "done",
        1: FAILED.get(command, "failed"),
        2: WRONG.get(command, "the job or its inputs are wrong; nothing was written"),
        130: "interrupted; what was committed is kept" if command in FAILED and command != "verify" else "interrupted",
    }
    lines = [f"  {status:<5}{meaning}" for status, meaning in statuses.items()]
    # A shell takes a line that ends in a backslash together with the next.
    example = " \\\n    ".join(textwrap.wrap(EXAMPLES[command], WIDTH, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(["\b\nExample:\n  " + example, "\n".join(["\b\nExit status:", *lines])])
