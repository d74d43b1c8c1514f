"""The list of all damages of a finished place: every file by every means, swaps, older versions, metadata, strays."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from torture.damage import SHAPES, Damage
from torture.job import BESIDE, CACHE, STORE

# Arrays that have a chunk for each shard.
OF_SHARDS = ("hidden_states", "layer_absmax", "shard_fingerprint", "shard_record")


def all_damages(folder: Path, donors: dict[str, Path]) -> list[Damage]:
    """Every damage of a place, by class."""
    files = sorted(
        str(p.relative_to(folder)) for top in ("runs", CACHE) for p in (folder / top).rglob("*") if p.is_file()
    )
    stored = [f for f in files if f.startswith(STORE)]
    found = [d for f in files for d in _of_file(folder, f)]
    found += [
        Damage("swapped", a, b) for a, b in _pairs(files) if (folder / a).read_bytes() != (folder / b).read_bytes()
    ]
    found += _swapped_in_group(folder, stored)
    found += _shards(folder, stored, donors)
    found += _older(folder, stored, donors)
    # Metadata of arrays in one group only: those of the others are alike.
    first = groups_of(folder)[0]
    documents = [f for f in stored if f.endswith("zarr.json") and (f.startswith(first) or len(f.split("/")) < 6)]
    found += [d for f in documents for d in _metadata(folder, f)]
    found += _consolidated(folder, first.removeprefix(f"{STORE}/"))
    found += _strays_and_removals(folder)
    return list(dict.fromkeys(found))


def _of_file(folder: Path, file: str) -> Iterator[Damage]:
    """One file, damaged by itself."""
    size = (folder / file).stat().st_size
    many = file.endswith("zarr.json") and size > 2_000
    for share in (0, 10, 25, 33, 50, 66, 75, 90, 99, 100) if many else (0, 30, 60, 100):
        yield Damage("flipped", file, str(share))
    yield from (Damage("cut", file, how) for how in ("50", "last"))
    yield from (Damage(kind, file) for kind in ("zeroed", "emptied", "deleted", "made a folder"))
    if Path(file).suffix in (".json", ".notes"):
        yield from (Damage("of another shape", file, how) for how in SHAPES)


def _pairs(files: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Files that could stand in each other's place: of the same array, of the same kind of document or cache entry."""
    kinds = defaultdict(list)
    for file in files:
        kinds[_kind(file)].append(file)
    for alike in kinds.values():
        yield from combinations(alike, 2)


def _kind(file: str) -> str:
    parts = file.split("/")
    if file.startswith(STORE):
        inside = parts[2:]
        if inside[-1] != "zarr.json":
            return f"chunk of {inside[inside.index('c') - 1]}"
        return f"metadata of {inside[2]}" if len(inside) == 4 else f"metadata of a group at {len(inside)}"
    if file.startswith(CACHE):
        return f"cache {parts[2]} {Path(file).suffix or (parts[-1] if len(parts) > 4 else '')}"
    return f"beside {'picture' if file.endswith('.png') else parts[-1]}"


def groups_of(folder: Path) -> list[str]:
    """Paths of the groups of models and datasets."""
    return sorted(
        str(p.parent.parent.relative_to(folder)) for p in (folder / STORE).glob("*/*/hidden_states/zarr.json")
    )


def _arrays(folder: Path, group: str) -> dict[str, dict]:
    found = {}
    for path in sorted((folder / group).glob("*/zarr.json")):
        found[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _swapped_in_group(folder: Path, stored: list[str]) -> Iterator[Damage]:
    """Arrays of one group that have the same shape and dtype, their chunks or all of them."""
    for group in groups_of(folder):
        alike = defaultdict(list)
        for name, document in _arrays(folder, group).items():
            alike[json.dumps([document["shape"], document["data_type"]])].append(name)
        for a, b in (pair for names in alike.values() for pair in combinations(names, 2)):
            for inside in ("/c", "", "/zarr.json"):
                yield Damage("swapped in its group", f"{group}/{a}{inside}", f"{group}/{b}{inside}")


def shard_files(folder: Path, group: str, shard: int) -> list[str]:
    """The files of one shard, by the arrays of `OF_SHARDS`."""
    found = [f for name in OF_SHARDS for f in sorted((folder / group / name / "c" / str(shard)).rglob("*"))]
    return [str(f.relative_to(folder)) for f in found if f.is_file()]


def _subsets(files: list[str]) -> Iterator[tuple[int, ...]]:
    for count in range(1, len(files) + 1):
        yield from combinations(range(len(files)), count)


def _shards(folder: Path, stored: list[str], donors: dict[str, Path]) -> Iterator[Damage]:
    """Subsets of the files of a shard: exchanged with those of another shard or group, or of an older version."""
    groups = groups_of(folder)
    every = [(g, s) for g in groups for s in range(len(list((folder / g / "hidden_states/c").iterdir())))]
    for one, another in combinations(every, 2):
        a, b = shard_files(folder, *one), shard_files(folder, *another)
        for chosen in _subsets(a):
            if len(chosen) > 1:
                names = (" ".join(f[i] for i in chosen) for f in (a, b))
                yield Damage("shard's files swapped", *names)
    for group, shard in every:
        files = shard_files(folder, group, shard)
        for version in donors:
            for chosen in _subsets(files):
                if any(_differs(folder, donors[version], files[i]) for i in chosen):
                    yield Damage("shard's files of an older version", " ".join(files[i] for i in chosen), version)


def _differs(folder: Path, donor: Path, file: str) -> bool:
    other = donor / file
    return other.exists() and other.read_bytes() != (folder / file).read_bytes()


def _older(folder: Path, stored: list[str], donors: dict[str, Path]) -> Iterator[Damage]:
    """Single files, whole arrays and whole groups of a store that was made with other inputs."""
    for version in donors:
        changed = [f for f in stored if _differs(folder, donors[version], f)]
        yield from (Damage("of an older version", f, version) for f in changed)
        arrays = dict.fromkeys("/".join(f.split("/")[:5]) for f in changed if len(f.split("/")) > 5)
        groups = dict.fromkeys("/".join(f.split("/")[:4]) for f in changed if len(f.split("/")) > 4)
        models = dict.fromkeys("/".join(f.split("/")[:3]) for f in changed if len(f.split("/")) > 3)
        yield from (Damage("of an older version", place, version) for place in [*arrays, *groups, *models])


def _metadata(folder: Path, file: str) -> Iterator[Damage]:
    """Keys of one zarr.json changed, removed or added; with and without the consolidated copy."""
    document = json.loads((folder / file).read_text(encoding="utf-8"))
    is_root = file == f"{STORE}/zarr.json"
    keys = [k for k in document if k != "consolidated_metadata"]
    attributes = document.get("attributes", {})
    keys += [f"attributes/{k}" for k in attributes]
    inner = [(k, name) for k, value in attributes.items() if isinstance(value, dict) for name in value]
    keys += ["/".join(["attributes", k, name.replace("/", "\\")]) for k, name in inner]
    for key in keys:
        for what in ("changed", "removed", *(["added"] if "/" in key else [])):
            yield Damage("metadata edited", file, f"{what} {key}")
            if not is_root:
                yield Damage("metadata edited", file, f"{what}+both {key}")
    for codec in range(len(document.get("codecs", []))):
        yield Damage("metadata edited", file, f"changed codecs/{codec}")


def _consolidated(folder: Path, group: str) -> Iterator[Damage]:
    """The consolidated copy alone changed; keys of the nodes of one group, since those of the others are alike."""
    file = f"{STORE}/zarr.json"
    document = json.loads((folder / file).read_text(encoding="utf-8"))
    yield Damage("consolidated metadata edited", file, "removed consolidated_metadata")
    inside = "consolidated_metadata/metadata"
    yield from (Damage("consolidated metadata edited", file, f"{w} {inside}") for w in ("changed", "removed"))
    for node, copy in document["consolidated_metadata"]["metadata"].items():
        name = node.replace("/", "\\")
        yield Damage("consolidated metadata edited", file, f"removed {inside}/{name}")
        yield Damage("consolidated metadata edited", file, f"added {inside}/{name}")
        if node.startswith("m") and "/" in node and not node.startswith(group):
            continue
        for key in [*copy, *(f"attributes/{k}" for k in copy.get("attributes", {}))]:
            for what in ("changed", "removed"):
                yield Damage("consolidated metadata edited", file, f"{what} {inside}/{name}/{key}")


def _strays_and_removals(folder: Path) -> Iterator[Damage]:
    group = groups_of(folder)[0]
    levels = [STORE, str(Path(group).parent), group, f"{group}/label", f"{group}/label/c", f"{group}/hidden_states/c"]
    for level in [*levels, f"{group}/hidden_states/c/0", BESIDE, f"{CACHE}/drillcore", f"{CACHE}/drillcore/rows"]:
        if (folder / level).is_dir():
            yield from (Damage("stray", level, name) for name in ("stray.txt", "foreign"))
    for one in groups_of(folder):
        yield Damage("removed", one)
        for name in _arrays(folder, one):
            yield Damage("removed", f"{one}/{name}")
            yield Damage("removed", f"{one}/{name}/c")
    yield from (Damage("removed", m) for m in dict.fromkeys(str(Path(g).parent) for g in groups_of(folder)))
    yield from (Damage("removed", place) for place in (STORE, BESIDE, CACHE, f"{BESIDE}/pictures"))
    yield from (Damage("removed", str(p.relative_to(folder))) for p in sorted((folder / CACHE / "drillcore").iterdir()))
