"""Runs `wsol prepare`."""

from wsol.cli.commands.prepare import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
