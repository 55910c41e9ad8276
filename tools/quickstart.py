"""Runs `wsol quickstart`."""

from wsol.cli.commands.quickstart import main
from wsol.cli.parser import run

if __name__ == "__main__":
    run(main)
