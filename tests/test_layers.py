"""Each folder of the packages imports only from folders below it, and has few entries."""

import ast
import graphlib
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT

# Lowest first. A package's own name stands for its __init__.py, which offers the public names.
LAYERS = (
    "robust_training.atomic_io",
    "robust_training.class_path",
    "robust_training.private_api",
    "robust_training.progress",
    "robust_training.devices",
    "robust_training.models",
    "robust_training.autograd",
    "robust_training.attribution",
    "robust_training.attacks",
    "robust_training.objectives",
    "robust_training.training",
    "robust_training",
    "wsol.boxes",
    "wsol.data",
    "wsol.heatmaps",
    "wsol.detectors",
    "wsol.localizer",
    "wsol.annotations",
    "wsol.evaluation",
    "wsol.robustness",
    "wsol.report",
    "wsol.cli",
    "wsol.experiments",
    "wsol.benchmarks",
    "wsol",
    "wsol.cli.commands",
    "tools",
)


def modules() -> dict[str, Path]:
    """Dotted name of every module of the packages and tools -> its file."""
    found = {}
    for part in ("robust_training", "wsol", "tools"):
        for file in (ROOT / part).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(source: str) -> set[str]:
    """Dotted names of all that a module imports, also inside functions and for type checkers."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say the whole name of the module"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(name: str) -> str | None:
    """The longest layer that a dotted name lies in; None for other packages."""
    fitting = [each for each in LAYERS if f"{name}.".startswith(f"{each}.")]
    return max(fitting, key=len, default=None)


def upward(sources: dict[str, str]) -> list[str]:
    """Imports from a higher layer, as sentences."""
    return [
        f"{module} ({layer(module)}) imports {name} ({layer(name)}), which lies above it"
        for module, source in sorted(sources.items())
        for name in sorted(imports(source))
        if layer(name) and LAYERS.index(layer(name)) > LAYERS.index(layer(module))
    ]


def folder(name: str, files: dict[str, Path]) -> Path | None:
    """Folder of the module that a dotted name lies in, which is a package's file itself if it lies
    in no folder of the package; None for other packages."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    file = files.get(name)
    return file.parent if file and len(file.relative_to(ROOT).parts) > 2 else file


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return modules()


@pytest.fixture(scope="module")
def sources(files) -> dict[str, str]:
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def test_every_module_has_a_layer(files):
    facades = ("robust_training", "wsol")
    assert [m for m in files if m not in facades and layer(m) in (None, *facades)] == []
    assert [each for each in LAYERS if not any(layer(module) == each for module in files)] == []


def test_imports_point_downwards(sources):
    assert upward(sources) == []


def test_folders_have_no_circles(files, sources):
    below = {folder(module, files): set() for module in files}
    for module in files:
        own = folder(module, files)
        below[own] |= {folder(name, files) for name in imports(sources[module])} - {None, own}
    list(graphlib.TopologicalSorter(below).static_order())  # CycleError names a circle


def test_folders_have_a_dozen_entries_at_most():
    folders = {
        file.parent
        for part in ("robust_training", "wsol", "tools", "tests")
        for file in (ROOT / part).rglob("*.py")
    }
    for folder in folders:
        entries = {each.name for each in folder.iterdir()} - {
            "__init__.py",
            "__main__.py",
            "__pycache__",
            "py.typed",
        }
        assert len(entries) <= 12, f"{folder} has {len(entries)} entries"


def test_upward_imports_are_found_wherever_they_stand():
    """At the top, in a function, for type checkers, by the package's name."""
    for source in (
        "import wsol.cli.parser",
        "def f():\n    from wsol.report import page",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wsol import cli",
        "from wsol import Localizer",
    ):
        assert len(upward({"wsol.boxes.iou": source})) == 1, source
        assert len(upward({"robust_training.models.weights": source})) == 1, source
        assert upward({"tools.train": source}) == []
    assert upward({"wsol.report.page": "import torch\nimport wsol.boxes.iou"}) == []
