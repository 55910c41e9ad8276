"""Runs `wsol export`."""

from wsol.cli.commands.export import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
