"""Runs `wsol demo`."""

from wsol.cli.commands.demo import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
