"""Last-token hidden states of every layer of a language model, for millions of sentences across many models."""
