"""The private functions of argparse and jsonargparse that the parser uses, each with its reason."""

import argparse
from typing import Any


def parser_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a parser's options, to suggest a name for a misspelt one; argparse lists them here."""
    return parser._actions


def declared_type(action: argparse.Action) -> Any:
    """Return the type of an option of jsonargparse, to suggest its classes, or None."""
    return getattr(action, "_typehint", None)
