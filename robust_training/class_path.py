"""Objects named by a class path, such as "my_module.MyClass"."""

import importlib
import re

CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def path_of_class(kind: type) -> str:
    """Return the path that `import_object` imports."""
    return f"{kind.__module__}.{kind.__qualname__}"


def import_object(path: str, kind: str) -> object:
    """Import what a class path names. Raises ValueError if there is no such module, or nothing of
    that name in it. The message calls it a `kind`, for example "network"."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"cannot import the {kind} {path}: {error} (PYTHONPATH=. lets Python find modules in "
            "this folder)"
        ) from error
