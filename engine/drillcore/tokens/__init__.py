"""From rows to token ids, prefix-tree packs and batches."""
