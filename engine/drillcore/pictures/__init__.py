"""Grids, curves and the report: plain numpy in frozen dataclasses (`panels`, `curves`, `report`) to files."""
