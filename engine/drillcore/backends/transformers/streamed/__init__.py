"""Decoder layers that are in memory one at a time, while all batches of a sweep pass through them."""
