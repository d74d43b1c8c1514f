"""Opens a backend on a tiny model."""

from __future__ import annotations

from pathlib import Path

from drillcore.backends.base import Prepared
from drillcore.backends.layers import resolve_layers
from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.backends.transformers.streamed.weights import LayerWeights
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences


def open_transformers(
    folder: Path, wanted="all", model: Model | None = None, **extract
) -> tuple[TransformersBackend, Prepared]:
    """The transformers backend on a model's folder, prepared. model: what else is said of it."""
    source = locate(model or Model(id=str(folder)), Path("/"))
    backend = TransformersBackend(source, Extract(**extract), resolve_layers(wanted, source.facts.num_layers))
    return backend, backend.prepare(Sequences.of([]), None)


def mix_up_layers(monkeypatch) -> None:
    """Let the first weight of each streamed layer be read as another one."""
    load = LayerWeights.load

    def mixed(self, layer):
        load(self, layer)
        for place in self.places[layer][:1]:
            place.module._parameters[place.name].data.mul_(1.01)

    monkeypatch.setattr(LayerWeights, "load", mixed)
