"""One reader for each format of text files."""
