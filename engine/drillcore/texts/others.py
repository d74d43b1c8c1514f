"""Kinds of files that are not read, and the line of Python that writes one that is."""

from __future__ import annotations

import json
from pathlib import Path

# Of pandas, and of others where the line says so. {} is the file's name.
_LINES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), "pandas.read_excel({})"),
    **dict.fromkeys((".pkl", ".pickle"), "pandas.DataFrame(pandas.read_pickle({}))"),
    ".npy": 'pandas.DataFrame({{"text": numpy.load({})}})',
    ".npz": "pandas.DataFrame(dict(numpy.load({})))",
    **dict.fromkeys((".pt", ".pth"), "pandas.DataFrame(torch.load({}))"),
    ".dta": "pandas.read_stata({})",
    ".sav": "pandas.read_spss({})",
    ".sas7bdat": "pandas.read_sas({})",
    ".orc": "pandas.read_orc({})",
    ".xml": "pandas.read_xml({})",
    **dict.fromkeys((".h5", ".hdf5"), "pandas.read_hdf({})"),
}


def line_for(path: Path) -> str:
    """The line that writes a file of another kind as Parquet; empty where none is known.

    >>> line_for(Path("texts/a.xlsx"))
    'pandas.read_excel("a.xlsx").to_parquet("a.parquet")'
    """
    made = _LINES.get(path.suffix.lower())
    if made is None:
        return ""
    written = json.dumps(path.with_suffix(".parquet").name, ensure_ascii=False)
    return f"{made.format(json.dumps(path.name, ensure_ascii=False))}.to_parquet({written})"
