"""docs/architecture.md: the folders in the order of the layers, and files that exist."""

import re

from tests.helpers.commands import ROOT
from tests.test_layers import LAYERS, layer

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_folders_are_listed_in_the_order_of_the_layers():
    listed = [
        folder.replace("/", ".") for folder in re.findall(r"(?m)^\| `(\w+(?:/\w+)+)/` \|", PAGE)
    ]
    folders = [each for each in LAYERS if "." in each and (ROOT / each.replace(".", "/")).is_dir()]
    assert list(dict.fromkeys(map(layer, listed))) == folders


def test_the_files_exist():
    names = re.findall(r"`(?:\w+/)*(\w+\.py)`", PAGE)
    assert names
    folders = [ROOT / folder for folder in ("robust_training", "wsol", "tools", "tests")]
    files = {file.name for folder in folders for file in folder.rglob("*.py")}
    assert set(names) <= files


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 100
