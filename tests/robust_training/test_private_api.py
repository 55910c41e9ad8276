"""Private functions of other libraries stand in one file of each package, and are all there."""

import ast
import importlib
import sys

import jsonargparse
import pytest

from robust_training import private_api
from robust_training.objectives import Objective
from tests.helpers.commands import ROOT
from wsol.cli.private_api import declared_type, parser_actions

FILE = ROOT / "robust_training" / "private_api.py"
FILES = (FILE, ROOT / "wsol" / "cli" / "private_api.py")


def imported(source: str) -> list[tuple[str, str]]:
    """(module, name) of all `from module import name`."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = [(node.module, alias.name) for node in nodes for alias in node.names]
    return [pair for pair in names if is_private(".".join(pair))]


def is_private(dotted: str) -> bool:
    return any(p.startswith("_") and not p.startswith("__") for p in dotted.split("."))


def private_uses(source: str) -> list[str]:
    """Private names that a module imports, or takes from a module that it imports."""
    tree = ast.parse(source)
    found, aliases = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            aliases |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
            aliases |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        parts, root = [], node
        while isinstance(root, ast.Attribute):
            parts.append(root.attr)
            root = root.value
        if parts and isinstance(root, ast.Name) and root.id in aliases:
            found.append(".".join([root.id, *reversed(parts)]))
    return [name for name in found if is_private(name)]


@pytest.mark.parametrize(("module", "name"), imported(FILE.read_text(encoding="utf-8")))
def test_a_missing_private_name_is_named(module, name, monkeypatch):
    found = importlib.import_module(module)
    assert hasattr(found, name), f"{module} has no {name} any more: {FILE} says what it is for"
    monkeypatch.delattr(found, name)
    monkeypatch.delitem(sys.modules, private_api.__name__)
    with pytest.raises(ImportError, match=name):
        importlib.import_module(private_api.__name__)


def test_parsers_still_list_their_options_and_types():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--objective", type=Objective)
    action = next(a for a in parser_actions(parser) if a.dest == "objective")
    assert declared_type(action) is Objective


def test_no_other_file_uses_private_names():
    files = [
        f for part in ("robust_training", "wsol", "tools") for f in (ROOT / part).rglob("*.py")
    ]
    found = {
        str(file.relative_to(ROOT)): uses
        for file in files
        if file not in FILES and (uses := private_uses(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_private_uses_are_found_in_every_form():
    for source in (
        "import torch._dynamo",
        "from torch._C import thing",
        "from torch.nn import _thing",
        "import torch\ntorch._C.thing()",
        "import torch.nn.functional as F\nF._verify(1)",
        "from os import path\npath._thing",
    ):
        assert private_uses(source), source
    assert private_uses("from __future__ import annotations\nimport torch\ntorch.__version__") == []
    assert private_uses("import torch\nself._thing.other") == []
