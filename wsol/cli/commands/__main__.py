"""The console command `wsol`."""

import importlib
from typing import NoReturn

import wsol
from wsol.cli.parser import run
from wsol.cli.program import COMMANDS
from wsol.data.names import suggestion


def main() -> NoReturn:
    run(_dispatch)


def _dispatch(arguments: list[str]) -> int | None:
    name, *own = arguments or ["--help"]
    if name in ("-h", "--help"):
        print("usage: wsol COMMAND ...\n\nBoxes from image labels. Each command has --help.\n")
        print("\n".join(f"  {name:11} {each.purpose}" for name, each in COMMANDS.items()))
        return 0
    if name == "--version":
        print(f"wsol {wsol.__version__}")
        return 0
    if name not in COMMANDS:
        raise ValueError(f"there is no command {name!r}{suggestion(name, list(COMMANDS))}")
    return importlib.import_module(f"wsol.cli.commands.{name}").main(own)


if __name__ == "__main__":
    main()
