"""The files of a dataset: what its paths and patterns name, in order, and their rows one after the other."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.system.bounds import read_object, real_path
from drillcore.texts.formats import Format, format_of, read_rows
from drillcore.texts.nested import WHOLE, with_nested
from drillcore.texts.problems import Problems
from drillcore.texts.prompts import Writer
from drillcore.texts.readers.lines import Row
from drillcore.texts.survey import is_dropped


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that paths and patterns name: those of a pattern in natural order, the paths as they are listed.

    Raises TextError for a pattern that matches nothing, for a file that is named twice, and for files of different
    formats.

    >>> [file.name for file in files_of([Path("b.csv"), Path("a.csv")])]
    ['b.csv', 'a.csv']
    """
    found = [file for path in paths for place in _matched(path) for file in _saved(place)]
    seen: set[Path] = set()
    for file in found:
        if real_path(file) in seen:
            raise TextError(f"{file} is named twice", hint="Name each file once; a pattern matches links too.")
        seen.add(real_path(file))
    if len(found) > 1:
        for file in found[1:]:
            if format_of(file).kind != format_of(found[0]).kind:
                raise TextError(
                    f"{found[0]} and {file} are of different formats",
                    hint="The files of a dataset are of one format; make each format a dataset of its own.",
                )
    return found


def _matched(path: Path) -> list[Path]:
    """The files of a path: itself, or what it matches where it is a pattern and no file."""
    named = str(path)
    if not glob.has_magic(named) or _there(path.exists):
        return [path]
    matched = sorted(glob.glob(named, recursive=True), key=natural)  # noqa: PTH207 - the pattern is absolute
    if not matched:
        raise TextError(f"{named} matches no file", hint="In a pattern, * stands for any letters and ** for folders.")
    return [Path(name) for name in matched]


def _there(is_so: Callable[[], bool]) -> bool:
    """Whether a question about a path is answered with yes; a name that no file can have is the reader's to refuse."""
    try:
        return is_so()
    except (OSError, ValueError):
        return False


def _saved(path: Path) -> list[Path]:
    """The files of a folder that `save_to_disk` wrote; any other path itself."""
    if not _there(path.is_dir):
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in path.iterdir() if (each / "state.json").is_file())
        named = ", ".join(splits[:5]) or "none"
        hint = f"Name the folder of one split, such as {path.name}/{splits[0] if splits else 'train'}."
        raise TextError(f"{path} holds several splits: {named}", hint=hint)
    if not (path / "state.json").is_file():
        hint = "Name files, a pattern such as folder/*.csv, or a folder that save_to_disk of datasets wrote."
        raise TextError(f"{path} is a directory, not a file", hint=hint)
    try:
        return [path / PurePath(each["filename"]).name for each in read_object(path / "state.json")["_data_files"]]
    except (KeyError, TypeError):
        raise TextError(f"{path / 'state.json'} names no files", hint="Write the folder anew.") from None


def natural(name: str) -> list[tuple[int, int, str]]:
    """What names are sorted by, so that part-2 stands before part-10.

    >>> sorted(["part-10.csv", "part-2.csv", "part-a.csv"], key=natural)
    ['part-2.csv', 'part-10.csv', 'part-a.csv']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def called(dataset: Dataset, file: Path) -> str:
    """What messages call a file of a dataset: its path, or the address on the hub that it is a copy of."""
    return str(file) if dataset.hub is None else dataset.hub.address


def format_for(dataset: Dataset, path: Path) -> Format:
    """The format of a file of a dataset; raises TextError where the name has no known ending."""
    if dataset.hub is not None:  # its copy in the cache
        return Format("arrow", drops_blank=dataset.empty == "drop")
    named = dataset.delimiter or ""
    named = "\t" if named == "tab" else named
    return replace(format_of(path), delimiter=named, encoding=dataset.encoding, drops_blank=dataset.empty == "drop")


@dataclass
class FileRows:
    """The rows of a dataset's files; problems are added with the file that they are in.

    file: of the last row. skips: leaves out the other rows of that file. empty: files that held no row.
    """

    paths: Sequence[Path]
    dataset: Dataset
    problems: Problems
    empty: list[Path] = field(default_factory=list)
    skips: bool = False

    def __post_init__(self) -> None:
        """Begin with the first file; raises TextError where a name has no known ending."""
        self.file = self.paths[0]
        self.kinds = [format_for(self.dataset, path) for path in self.paths]
        self._writer = None if self.dataset.prompt is None else Writer(self.dataset)

    def add(self, line: int | None, message: str) -> None:
        """A problem with a line of the file that is being read, or with all of it."""
        self.problems.add(called(self.dataset, self.file), line, message)

    def rows(self, wanted: Sequence[str]) -> Iterator[Row]:
        """The rows of all files, with the text that a Jinja template writes where the dataset has one."""
        if self._writer is not None:
            wanted = [*wanted, *(field + WHOLE for field in self._writer.fields)]
        for file, kind in zip(self.paths, self.kinds, strict=True):
            self.file, self.skips, has_rows = file, False, False
            nested = [name for name in wanted if "." in name] if kind.reader.is_typed else []
            for line, row in read_rows(file, kind, wanted, self.add):
                found = with_nested(row, nested) if row is not None and nested else row
                if self._writer is not None and found is not None:
                    if not has_rows and kind.reader.has_columns and self._writer.lacks(found, self.add, kind.kind):
                        has_rows = True
                        break
                    # A row that is left out for want of a label need have no text.
                    if not is_dropped(found, self.dataset):
                        found = self._writer.fill(found, file, line, self.add)
                yield line, found
                has_rows = True
                if self.skips:
                    break
            if not has_rows:
                self.empty.append(file)
