"""The stages of a run: a readable page each."""
