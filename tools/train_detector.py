"""Runs `wsol detector`."""

from wsol.cli.commands.detector import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
