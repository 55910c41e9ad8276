"""Runs `wsol train`."""

from wsol.cli.commands.train import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
