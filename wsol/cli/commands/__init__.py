"""The commands, one file for each: `wsol NAME` and the scripts in tools/ call its `main`."""
