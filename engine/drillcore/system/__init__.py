"""The ground: files, machine, versions, registry, progress, signals."""
