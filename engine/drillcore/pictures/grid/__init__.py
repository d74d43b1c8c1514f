"""Grids: one panel for each model and layer."""
