"""What Python code asks for: jobs, runs, and results as typed values that the command line prints too."""
