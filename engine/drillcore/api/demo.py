"""The demo: its job and sentences, written into a folder laid out as the repository is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from drillcore.errors import JobError, MissingExtraError
from drillcore.projections import NEEDS
from drillcore.runtime.settings import PACKAGES
from drillcore.system.bounds import problem_with_folder, problem_with_output
from drillcore.system.files import write_atomic

DATA = Path(__file__).parents[1] / "data"
"""Files that come with the package."""
JOB, SCHEMA = "jobs/demo.yaml", "schemas/job.schema.json"
FILES = (
    JOB,
    "jobs/texts/toronto-montreal-complete.jsonl",
    "jobs/texts/toronto-montreal-complete-no-period.jsonl",
    "jobs/texts/toronto-montreal-incomplete.jsonl",
    SCHEMA,
)
"""What a folder of the demo holds, apart from `runs/`; the job comes first."""
OF_MODELS = ("torch", "transformers", "safetensors", "accelerate", "gguf")


def refuse_missing_packages() -> None:
    """Raise MissingExtraError, with every name, where a package that the demo's run imports is not installed."""
    wanted = [*OF_MODELS, *(name for names, _ in PACKAGES.values() for name in names), *NEEDS["umap-learn"]]
    missing = [name for name in dict.fromkeys(wanted) if find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"the demo needs {', '.join(missing)}, which {are} not installed", hint="pip install 'drillcore[all]'"
        )


def missing_files(folder: Path) -> list[str]:
    """The demo's files that are to be written into a folder: all for one that is empty or not there.

    The schema of another version is one of them.

    Raises JobError where the folder holds something else, or a file of the demo that was changed.
    """
    if problem := problem_with_folder(folder):
        raise JobError(f"{folder} cannot be a folder: it {problem}", hint="Name another folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JOB).exists():
        raise JobError(f"{folder} is not empty and holds no demo", hint="Name another folder: drillcore demo my-folder")
    for name in FILES:
        path = folder / name
        if problem := problem_with_folder(path.parent) or problem_with_output(path):
            raise JobError(f"{path} cannot be a file of the demo: it {problem}", hint="Move it away.")
        if name != SCHEMA and path.exists() and not _is_shipped(folder, name):
            raise JobError(
                f"{path} is not the demo's: it was changed, or another version of drillcore wrote it",
                hint=f"Name another folder for the demo, or run what is there: drillcore run {folder / JOB}",
            )
    return [name for name in FILES if not _is_shipped(folder, name)]


def _is_shipped(folder: Path, name: str) -> bool:
    """Whether a file is there, byte for byte as the package has it."""
    path = folder / name
    return path.exists() and path.read_bytes() == (DATA / name).read_bytes()


def write_demo(folder: Path) -> Path:
    """Write what is missing of the demo's files into a folder, which is made; returns the path of the job file.

    Raises JobError where `missing_files` does, or the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_demo(Path(folder)).relative_to(folder).as_posix(), missing_files(Path(folder))
    ('jobs/demo.yaml', [])
    """
    for name in missing_files(folder):
        try:
            write_atomic(folder / name, (DATA / name).read_bytes())
        except OSError as error:
            what = f"{folder / name} cannot be written: {error.strerror}"
            raise JobError(what, hint="Name another folder.") from None
    return folder / JOB
