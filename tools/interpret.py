"""Runs `wsol interpret`."""

from wsol.cli.commands.interpret import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
