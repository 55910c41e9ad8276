"""Runs `wsol benchmark`."""

from wsol.cli.commands.benchmark import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
