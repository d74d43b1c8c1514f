"""Addresses of data sets of the Hugging Face hub whose rows are texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from drillcore.job.choices import shortened
from drillcore.system.tables import SUFFIXES

FORM = "hf://datasets/ORG/NAME/SPLIT, or hf://datasets/ORG/NAME/CONFIG/SPLIT where there are several configurations"
ADDRESS = re.compile(r"hf:/{1,2}datasets/([\w.-]+/[\w.-]+)(?:/([^/<>:\\|?*@]+))?/(\w+(?:\.\w+)*)/?")
# The form of a commit; branches and tags may not have it.
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubRows:
    """The rows of one split. repo: `org/name` of the data set. config: its configuration, or empty for its only one."""

    repo: str
    config: str
    split: str

    @classmethod
    def of(cls, address: str) -> HubRows:
        """From an address; raises ValueError.

        >>> HubRows.of("hf://datasets/nyu-mll/glue/sst2/train")
        HubRows(repo='nyu-mll/glue', config='sst2', split='train')
        """
        found = ADDRESS.fullmatch(address)
        if found is None:
            more = "; `revision:` names a branch, tag or commit" if "@" in address else ""
            raise ValueError(f"{shortened(address)} names no split of a data set of the hub: write {FORM}{more}")
        if PurePath(found[3]).suffix.lower() in (*SUFFIXES, ".gz", ".zst"):
            raise ValueError(f"{shortened(address)} names a file, not a split: write {FORM}")
        return cls(found[1], found[2] or "", found[3])

    @property
    def address(self) -> str:
        """As it is written, with both slashes."""
        return f"hf://datasets/{self.repo}/{self.config}{'/' if self.config else ''}{self.split}"

    @property
    def name(self) -> str:
        """What the dataset is called that has no name of its own.

        >>> HubRows("nyu-mll/glue", "sst2", "train").name
        'glue-sst2-train'
        """
        return "-".join(filter(None, (self.repo.partition("/")[2], self.config, self.split)))


def is_on_hub(path: str) -> bool:
    """Whether a path is an address of the hub; one that Python's Path has been through has a slash less."""
    return path.startswith("hf:/")
