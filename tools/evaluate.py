"""Runs `wsol evaluate`."""

from wsol.cli.commands.evaluate import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
