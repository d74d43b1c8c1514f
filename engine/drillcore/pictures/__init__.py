"""Grids, curves and the report: from plain NumPy arrays in frozen dataclasses (`data`) to files."""
