"""Takes over the group of a dataset or model that was renamed: its states are those that the job asks for."""

from __future__ import annotations

from drillcore.runtime.context import Context
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.extract.pending import asked_of
from drillcore.runtime.stages.extract.standing import Asked, Standing, stand
from drillcore.store.canaries import read_canaries, write_canaries
from drillcore.store.checks.groups import group_paths


def take_over_renamed(context: Context) -> None:
    """Give each group of the job that is empty the states of one that left the job, where those are what it must hold.

    Results of later stages go with them.
    """
    store, pairs = context.store, context.inputs.pairs
    left = [path for path in group_paths(store.root.store) if path not in {p.path for p in pairs}]
    for model in context.inputs.sources if left else ():
        asked = asked_of(context, model)
        for pair in context.inputs.of_model(model):
            found = None if any(stand(asked, pair, store.root.store).claimed) else _find(context, asked, pair, left)
            if found is None:
                continue
            canaries = read_canaries(store.model(found.split("/")[0]))
            store.move(found, pair.path)
            if canaries is not None and read_canaries(store.model(model)) is None:
                # A later change of the model must show against what was taken over, too.
                write_canaries(store.model(model), canaries)
            left.remove(found)
            context.listener.say(f"{pair.path}: taken over from {found}, which left the job and holds the same states")


def _find(context: Context, asked: Asked, pair: Input, left: list[str]) -> str | None:
    """The group that has most of what a pair must hold, and nothing else; None where there is none."""
    standings = {path: stand(asked, pair, context.store.root.store, path) for path in left}
    fitting = {path: s.num_kept for path, s in standings.items() if _fits(s)}
    return max(fitting, key=fitting.__getitem__) if fitting else None


def _fits(standing: Standing) -> bool:
    return standing.known and standing.num_kept > 0 and standing.takes_nothing
