"""The safetensors files that transformers reads from a model's folder, and the tensors that their headers name.

Reads headers, never weights: a model of any size takes moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drillcore.errors import ModelError
from drillcore.system.bounds import problem_with, read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
AGAIN = "Download it again, or copy it from where it is whole."


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, as its header tells. dtype: by the name that safetensors gives it, such as BF16."""

    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def num_values(self) -> int:
        """How many values it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def weight_files(model: str, folder: Path, named: str | None = None) -> list[Path]:
    """The files that transformers reads, in its order.

    model: its id, for messages. named: file or index that the configuration names instead of the usual one. Raises
    ModelError where there are none, where the index cannot be read, or where it names a file that is not there.
    """
    if (folder / ".metadata").exists():
        raise ModelError(
            f"model {model}: {folder} holds a distributed checkpoint of PyTorch (.metadata), which is pickled",
            hint="Pickled weights are never read: convert the model with save_pretrained.",
        )
    for path in folder.glob("*.safetensors*"):
        problem = problem_with(path)
        if problem:
            raise ModelError(f"model {model}: {path} {problem}", hint="Put the file itself there, or take it away.")
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    choices = [named] if named else [WHOLE, INDEX]
    chosen = next((folder / name for name in choices if (folder / name).exists()), None)
    if chosen is None and (named or not present):
        where = f": {folder} holds no {named}, which its config.json names" if named else ""
        raise ModelError(
            f"model {model} has no safetensors weights{where}",
            hint="Pickled weights are never read: convert the model with save_pretrained.",
        )
    if chosen is None:
        raise ModelError(
            f"model {model}: {folder} holds {few(present)}, but neither {WHOLE} nor {INDEX}, which say what to read",
            hint="Copy the index too; or write the model again with save_pretrained.",
        )
    return _indexed(model, folder, chosen) if chosen.name.endswith(".index.json") else [chosen]


def _indexed(model: str, folder: Path, index: Path) -> list[Path]:
    try:
        entries = read_json(index)
    except (OSError, ValueError) as error:
        raise _no_index(model, index, str(error)) from error
    # transformers requires both.
    named = (
        entries.get("weight_map") if isinstance(entries, dict) and isinstance(entries.get("metadata"), dict) else None
    )
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise _no_index(model, index, "it must hold `metadata` and `weight_map`, with the name of a file each")
    names = sorted(set(named.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelError(
            f"model {model}: {index.name} names {few(outside)}, which are not files of {folder}",
            hint="Put all files of the model into its folder, and write their names there.",
        )
    absent = [name for name in names if problem_with(folder / name)]
    if absent:
        raise ModelError(
            f"model {model}: {index.name} names {few(absent)}, not to be found in {folder}",
            hint="Download or copy the missing files.",
        )
    return [folder / name for name in names]


def _no_index(model: str, index: Path, why: str) -> ModelError:
    return ModelError(f"model {model}: {index} cannot be read as an index of weights ({why})", hint=AGAIN)


def not_indexed(files: list[Path]) -> list[str]:
    """Names of weight files that lie beside `files` and are not read."""
    beside = {path.name for path in files[0].parent.glob("*.safetensors")} - {path.name for path in files}
    return sorted(name for name in beside if not name.startswith(("adapter_", "consolidated")))


def read_headers(model: str, files: list[Path]) -> dict[str, StoredTensor]:
    """The tensors of all files by name.

    Raises ModelError for a file that is cut off or damaged, and for a name that two files hold with different values.
    """
    from safetensors import safe_open

    tensors: dict[str, StoredTensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt", backend="pread") as opened:
                for name in opened.keys():  # noqa: SIM118, it is no mapping
                    part = opened.get_slice(name)
                    tensor = StoredTensor(tuple(part.get_shape()), part.get_dtype(), file)
                    if name in tensors:
                        _refuse_unless_equal(model, name, tensors[name], tensor)
                    tensors[name] = tensor
        except ModelError:
            raise
        except Exception as error:  # safetensors raises errors of its own, OSError and MemoryError
            raise _damaged(model, file, error) from error
    return tensors


def _refuse_unless_equal(model: str, name: str, one: StoredTensor, other: StoredTensor) -> None:
    import torch
    from safetensors import safe_open

    values = []
    for tensor in (one, other):
        with safe_open(tensor.file, framework="pt", backend="pread") as opened:
            values.append(opened.get_tensor(name))
    if values[0].dtype != values[1].dtype or not torch.equal(*values):
        raise ModelError(
            f"model {model}: {one.file.name} and {other.file.name} hold different values of {name}",
            hint="Shards of two models lie in one folder: write or download the model again, into an empty one.",
        )


def _damaged(model: str, file: Path, error: Exception) -> ModelError:
    try:
        with file.open("rb") as stream:
            beginning = stream.read(len(LFS_POINTER))
    except OSError:
        return ModelError(f"model {model}: {file} cannot be read: {error}", hint=AGAIN)
    if beginning == LFS_POINTER:
        return ModelError(
            f"model {model}: {file} is a pointer of Git LFS, not the weights themselves", hint="Run git lfs pull there."
        )
    return ModelError(f"model {model}: {file} is cut off or damaged ({error})", hint=AGAIN)


def few(names: list[str]) -> str:
    """The first three of some names, and how many more there are.

    >>> few(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
