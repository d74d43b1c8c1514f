"""The names that a job or a command may use, by kind: plain data, so that `job` imports nothing else for them.

The tables that load what a name stands for (in `backends`, `measures`, ...) have the same names; a test compares them.
Add a name here and a row there.
"""

from __future__ import annotations

# `auto` is a backend that measures the others and then is one of them; `fake` computes states by arithmetic, for tests.
BACKENDS = ["auto", "transformers", "vllm", "fake"]
EXECUTORS = ["local", "ray"]
MEASURES = ["probe", "purity", "silhouette", "dispersion", "dispersion_centred"]
# What a projection is called in the store, and the libraries that compute it: `auto` chooses one.
PROJECTION_METHODS = ["umap", "pca"]
PROJECTION_BACKENDS = ["auto", "cuml", "umap-learn"]
READERS = ["jsonl", "csv", "tsv", "txt", "parquet", "json", "arrow"]
# Endings of the files of sentences that the readers read.
SUFFIXES = [".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".json", ".arrow", ".feather"]
EXPORTS = ["parquet", "npy", "anndata", "embedding-atlas", "probe"]
