"""The commands, by what they do: each module is one help page's worth of functions that `main` registers."""
