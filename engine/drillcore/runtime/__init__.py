"""Drives a run: preflight, stages, work, executors."""
