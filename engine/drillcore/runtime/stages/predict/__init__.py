"""Token prediction and candidates."""
