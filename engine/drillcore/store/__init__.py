"""The store: one Zarr v3 hierarchy a job, one group a model and dataset."""
