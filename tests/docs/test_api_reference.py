"""The reference of the public names: each has a docstring and an entry."""

import ast
import inspect
import subprocess
import sys

import pytest

import robust_training
import wsol
from tests.helpers.commands import ROOT

PACKAGES = (robust_training, wsol)
packages = pytest.mark.parametrize("package", PACKAGES, ids=lambda each: each.__name__)


@packages
def test_every_public_name_says_what_it_is(package):
    for name in package.__all__:
        assert inspect.getdoc(getattr(package, name)), name


@packages
def test_type_checkers_see_every_public_name(package):
    """Names that are loaded when first used are imported for type checkers."""
    nodes = ast.walk(ast.parse(inspect.getsource(package)))
    names = [
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert set(package.__all__) <= set(names)


@pytest.mark.ci
def test_the_reference_has_every_public_name(tmp_path):
    pytest.importorskip("pdoc")
    script = ROOT / "docs" / "api_reference.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for package in PACKAGES:
        page = (tmp_path / f"{package.__name__}.html").read_text()
        missing = [name for name in package.__all__ if f'id="{name}"' not in page]
        modules = [name for name in missing if inspect.ismodule(getattr(package, name))]
        assert missing == modules, missing
        assert all((tmp_path / package.__name__ / f"{name}.html").is_file() for name in modules)
