"""Pieces of work, and the worker that does them."""
