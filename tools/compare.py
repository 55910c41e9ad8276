"""Runs `wsol compare`."""

from wsol.cli.commands.compare import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
