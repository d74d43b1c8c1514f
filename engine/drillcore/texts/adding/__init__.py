"""Rows that are added at the end of a dataset's file: read, put as its format holds them, and written beside it."""
