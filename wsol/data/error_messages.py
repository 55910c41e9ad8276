"""Error messages that say where the mistake is."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(place: str, line: str | None = None) -> Iterator[None]:
    """Turns an error inside, such as a missing key, into a ValueError that begins with `place`.

    Args:
        line: The line of a file that is read; the message ends with its beginning.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{place}: no {error}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        end = "" if line is None else f": {line[:80]!r}"
        raise ValueError(f"{place}: {error}{end}") from error


def first_cause(error: BaseException) -> str:
    """The text of an error's first cause, or the type of that cause if it has no text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__
