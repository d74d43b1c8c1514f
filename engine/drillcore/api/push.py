"""A finished store into a data set of the Hugging Face hub, with a card that says what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from drillcore.api.page import table
from drillcore.api.progress import listener
from drillcore.api.show import Group, Shown, show
from drillcore.api.stores import AnyStore, address_of
from drillcore.api.verify import verify
from drillcore.errors import DamageError, RunError, StoreError
from drillcore.store.attributes import attributes_of
from drillcore.store.places.hub import HubAddress
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held
from drillcore.store.reader import open_root
from drillcore.system.hub import asking
from drillcore.system.progress import ProgressListener

# By which a card that was written here is known, and may be written again.
MARK = "<!-- written by drillcore push, up to its end; what stands above and below stays -->"
END = "<!-- end of what drillcore push writes -->"
HEAD = f"""\
---
# license: of your choice, within those of the model and of the texts
tags: [drillcore, hidden-states, zarr]
---
{MARK}
"""
WARNING = """\
**Hidden states can be inverted to their texts**, and the texts themselves lie beside them. Publish the states of those
texts only that you would publish themselves."""
LAYERS = """\
Layer 0 (`embed`) is the output of the token embedding, layer k (`block_k`) the residual stream after decoder block k,
and the last one (`final_norm`) the state after the final norm. The state is that of the last token unless the group's
attribute `position` says otherwise."""


@dataclass(frozen=True)
class Pushed:
    """What lies on the hub, or would. address: to open it with. url: of the data set's page. card: text of its README.

    files, bytes: of the store. commit: of the hub; empty after a dry run.
    """

    address: str
    url: str
    files: int
    bytes: int
    card: str
    commit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """As the terminal shows it."""
        size = f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB"
        if not self.commit:
            yield f"would push {size} to {self.address}, with this card:"
            yield self.card.rstrip("\n")
        else:
            yield f"pushed {size}: {self.url}"
            yield f"open it: drillcore.open({self.address!r})"

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return table(next(self.lines()), (), ())


def push(
    store: AnyStore,
    to: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    progress: bool | ProgressListener | None = None,
) -> Pushed:
    """Put a finished store, a folder of this machine, into a data set of the hub: `hf://datasets/org/name`.

    It is verified first and lands in one commit, in place of what lay at its path there: `<store's name>`, or the path
    that `to` names. A data set that does not exist yet is created, private unless `public`. Its card (README.md) names
    models, datasets and layers; a card of other hands is left as it is, and text below ours stays. dry_run: read the
    store, upload nothing. progress: as for `drillcore.run`. The token is that of `huggingface_hub`.

    Raises StoreError where the store is not finished, or the hub refuses, DamageError where the store is damaged.

    >>> pushed = drillcore.push("runs/job.zarr", "hf://datasets/org/states", dry_run=True)
    >>> pushed.address, "can be inverted" in pushed.card
    ('hf://datasets/org/states/job.zarr', True)
    """
    location, place = Location(address_of(store)), HubAddress.of(to)
    if location.is_remote:
        raise StoreError(f"{location.address} is no folder of this machine", hint="Copy the store here and push that.")
    if "@" in to:
        raise StoreError(f"{to}: a store is pushed to the main branch", hint="Leave out what follows the @.")
    shown = show(location.address)
    _refuse_unfinished(shown)
    refuse_if_held(location)
    found = verify(location.address, progress=progress)
    if not found.whole:
        raise DamageError(
            f"the store {location.address} is damaged and was not pushed", hint="`drillcore run` on its job mends it."
        )
    path = place.path or location.path.resolve().name
    address = f"hf://datasets/{place.repo}/{path}"
    files = [file for file in location.path.rglob("*") if file.is_file()]
    card = card_of(shown, address, _weights(location))
    with asking(place.repo) as hub:
        url = f"{hub.constants.ENDPOINT}/datasets/{place.repo}"
        sizes = sum(file.stat().st_size for file in files)
        if dry_run:
            return Pushed(address, url, len(files), sizes, card)
        heard = listener(progress)
        heard.say(f"pushing {len(files):,} files, {sizes / 1e6:,.1f} MB, to {url}")
        commit = _upload(hub, location.path, place.repo, path, card, public=public)
        return Pushed(address, url, len(files), sizes, card, commit)


def _upload(hub: Any, folder: Path, repo: str, path: str, card: str, *, public: bool) -> str:
    """Put the card and then, in one commit, the store into a data set; returns the commit."""
    api = hub.HfApi()
    shows = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        _write_card(hub, repo, card)
        what = {"repo_id": repo, "repo_type": "dataset", "commit_message": f"drillcore store {path}"}
        # What an earlier push left there and this store does not have goes in the same commit.
        done = api.upload_folder(folder_path=folder, path_in_repo=path, delete_patterns=["**"], **what)
        return str(done.oid)
    except RuntimeError as error:
        why = f"{error} {error.__cause__ or ''}".strip()
        raise RunError(f"the upload failed: {why}", hint="Run the same command again: no commit was made.") from error
    finally:
        if shows:
            hub.utils.enable_progress_bars()


def _refuse_unfinished(shown: Shown) -> None:
    if not shown.groups:
        raise StoreError(f"the store {shown.store} is empty", hint="Run its job first.")
    for group in shown.groups:
        if not group.has_states or group.complete < 1:
            raise StoreError(f"{group.path}: its states are not all there", hint="Finish the run of its job first.")


def _weights(location: Location) -> dict[str, str]:
    """The files of each model's weights with the beginning of their digests, in words."""
    root, said = open_root(location), dict[str, str]()
    for model, group in root.groups():
        for _, leaf in group.groups():
            for recipe in attributes_of(leaf).get("recipes", ()):
                model_facts = recipe.get("request", {}).get("model", {})
                files: dict[str, str] = model_facts.get("weights") or {}
                said[model] = ", ".join(f"{name} {value[:12]}" for name, value in sorted(files.items())[:3])
    return said


def card_of(shown: Shown, address: str, weights: dict[str, str]) -> str:
    """The text of a data set's README.md: what the store holds, how it is opened, and a warning."""
    name = PurePosixPath(address).name
    first = shown.groups[0]
    lines = [
        HEAD + f"# Hidden states: {name}",
        "",
        f"A [Zarr](https://zarr.dev) store of drillcore's job `{_cell(shown.job)}`, format {shown.format}: hidden",
        "states of language models, layer by layer, with the sentences they belong to.",
        "",
        WARNING,
        "",
        "| model | dataset | sentences | rows | layers | hidden size | results |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(group) for group in shown.groups),
        "",
        *(f"- `{_cell(model)}`: weights {files} (SHA-256)" for model, files in weights.items() if files),
        "",
        LAYERS,
        "",
        "```python",
        "import drillcore",
        "",
        f'tree = drillcore.open("{address}")',
        f'states = tree["{first.path}"].hidden_states.isel(layer=-1)  # read when it is used',
        "```",
        "",
        "Licence: to be filled in by whoever publishes this, within those of the models and of the texts.",
        END,
    ]
    return "\n".join(lines) + "\n"


def _row(group: Group) -> str:
    results = ", ".join(group.results) or "none"
    cells = (group.model, group.dataset, f"{group.sentences:,}", f"{group.rows:,}", group.layers, group.hidden_size)
    return "| " + " | ".join(_cell(str(cell)) for cell in (*cells, results)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _write_card(hub: Any, repo: str, card: str) -> None:
    """Write the card where there is none, or ours; what others wrote below or instead of it stays."""
    api = hub.HfApi()
    text = ""
    if api.file_exists(repo, "README.md", repo_type="dataset"):
        file = hub.hf_hub_download(repo, "README.md", repo_type="dataset")
        text = Path(file).read_text(encoding="utf-8")
        if MARK not in text or END not in text:
            return
        # Front matter may hold a licence by now.
        head, own = text.partition(MARK)[0], card.partition(MARK)
        card = head + "".join(own[1:]).rstrip("\n") + text.partition(END)[2]
    if card != text:
        message = "drillcore: the card"
        api.upload_file(
            path_or_fileobj=card.encode(),
            path_in_repo="README.md",
            repo_id=repo,
            repo_type="dataset",
            commit_message=message,
        )
