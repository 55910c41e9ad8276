"""Runs `wsol localize`."""

from wsol.cli.commands.localize import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
