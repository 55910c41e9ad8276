"""Option parser, run folders and subprocesses of the scripts in tools/."""
