"""README.md and docs/: what they name exists, and the tools understand every command in them.

`pytest -m slow tests/docs/test_docs_run.py` runs the commands.
"""

import dataclasses
import re
import typing
from unittest import mock

import pytest

from tests.helpers.commands import ROOT, tool
from tests.helpers.documents import (
    DOCUMENTS,
    EXPERIMENTS,
    PAGES,
    PYTHON,
    SHELL,
    anchors,
    blocks,
    links,
    name_of,
    prose,
    words,
)
from tests.helpers.stage import NOT_TOOLS, importing_from, of_train, parse, rule, set_stage
from wsol.cli.parser import Parser, classes_in
from wsol.data.toy_birds.writing import write_toy_birds

by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    data = write_toy_birds(tmp_path_factory.mktemp("data"), images=24, size=32, species=2).parent
    return set_stage(tmp_path_factory.mktemp("stage"), data)


def understand(command, stage):
    """Let the tool of a command read it."""
    if command in NOT_TOOLS:
        target = command.removeprefix("make ")
        assert target == command or f"\n{target}:" in (ROOT / "Makefile").read_text()
        return
    found = words(command, stage)
    while "=" in found[0]:  # variables
        found = found[1:]
    if found[0] == "torchrun":
        found = ["python", *found[found.index("tools/train.py") :]]
    if found[:2] == ["python", "run_onnx.py"]:
        assert len(found) == 5
        return
    key, arguments = rule(found)
    for file in re.findall(r"--config (\S+/config\.yaml)", command):
        (stage / file).parent.mkdir(parents=True, exist_ok=True)
        (stage / file).write_text("{data: {root: TOY}, output: runs/x, objective: Standard}")
    parse(key.split()[0], arguments, stage)
    for each in of_train(key, arguments):
        parse("train.py", [*each, "--output", "o"], stage)


@by_name
def test_the_tools_understand_every_command(document, stage):
    with importing_from(stage):
        for block in blocks(document):
            if block.file:
                (stage / block.file).write_text(block.text)
            for command in block.commands() if block.language == SHELL else ():
                try:
                    understand(command, stage)
                except (AssertionError, KeyError, ValueError) as error:
                    pytest.fail(f"{block.place}: {error}")


@by_name
def test_links_lead_somewhere(document):
    for link in links(document):
        file, _, anchor = link.partition("#")
        place = (document.parent / file).resolve() if file else document
        assert place.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(place), f"{document.name}: {link}"
        if place.suffix in (".jpg", ".png"):
            assert place.stat().st_size < 200_000, link


def add_names(declared, names):
    """Add the names of the classes in a type, and of their settings, also nested ones."""
    for kind in set(classes_in(declared)):
        if kind.__name__ not in names:
            names.add(kind.__name__)
            for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
                names.add(field.name)
                add_names(typing.get_type_hints(kind)[field.name], names)


@pytest.fixture(scope="module")
def known():
    """Every name that any tool's parser knows, parts of dotted ones too."""
    parsers = []
    make = Parser.__init__

    def remember(self, *given, **options):
        make(self, *given, **options)
        parsers.append(self)

    commands = [(file.name,) for file in (ROOT / "tools").glob("*.py")]
    commands += [("evaluate.py", each) for each in ("scoremaps", "boxes")]
    commands += [("benchmark.py", e) for e in ("boxes", "scoremaps", "train", "attack", "loader")]
    commands += [
        ("train.py", "--help_all"),
        ("export.py", "benchmark"),
        ("evaluate.py", "--robustness", "true"),
    ]
    commands += [("prepare_data.py", each) for each in ("toy", "cub", "verify")]
    with mock.patch.object(Parser, "__init__", remember):
        for command in commands:
            status, text, error = tool(*command, "--help")
            assert (status, command[0] in text) == (0, True), error
    names = {"help", "help_all", "init_args"}
    for action in (action for parser in parsers for action in parser._actions):
        names |= set(action.dest.split("."))
        add_names(getattr(action, "_typehint", None), names)
    return names


_OTHERS_OPTIONS = {"nnodes", "nproc-per-node", "rdzv-endpoint"}  # torchrun's


@by_name
def test_options_in_the_text_exist(document, known):
    for option in re.findall(r"(?<![\w-])--([a-zA-Z][\w.-]*)", prose(document)):
        missing = {part for part in option.rstrip(".").split(".") if part} - known - _OTHERS_OPTIONS
        assert not missing, f"{document.name}: --{option}"


@by_name
def test_files_in_the_text_exist(document):
    """Names that begin with one of the repository's folders are names of its files."""
    text, shown = prose(document), {block.file for block in blocks(document)}
    folders = "configs|tools|tests|robust_training|wsol|docs"
    for name in re.findall(rf"(?<![\w/:.])((?:{folders})/[\w*./-]*[\w*/])", text):
        assert list(ROOT.glob(name)), f"{document.name}: {name}"
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(name)), f"{document.name}: {name}"
    for name in re.findall(r"`(\w+\.yaml)`", text):
        config = name in shown | {"config.yaml"} or list((ROOT / "configs").rglob(name))
        assert config, f"{document.name}: {name}"


@by_name
def test_python_in_the_text_is_python(document):
    for block in blocks(document):
        if block.language == PYTHON:
            compile(block.text, block.place, "exec")


def test_commands_are_read_as_a_shell_reads_them(tmp_path):
    text = (
        "Words\n\n    a 'b c' \\\n        {d,e}.x  # f\n    # g\n    h\n\n* point\n\n      i *.z\n"
    )
    text += "\n```python\n# j.py\nk = 1\n```\n```math\nl\n```\nno\n    block\n"
    (tmp_path / "page.md").write_text(text)
    for name in ("1.z", "2.z"):
        (tmp_path / name).touch()
    found = blocks(tmp_path / "page.md")
    assert [block.language for block in found] == [SHELL, SHELL, PYTHON]
    assert [block.file for block in found] == [None, None, "j.py"]
    commands = [command for block in found[:2] for command in block.commands()]
    assert [words(command, tmp_path) for command in commands] == [
        ["a", "b c", "d.x", "e.x"],
        ["h"],
        ["i", "1.z", "2.z"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        "python tools/nothing.py x",
        "pip install something",
        "python tools/train.py --data.root TOY --epocs 3",
        "python tools/benchmark.py nothing",
        "python tools/evaluate.py",
        "python tools/compare.py configs/methods/art.yaml --base configs/toy_standard.yaml "
        "--epochs 1 --output o -- --wieght 3",
    ],
)
def test_a_command_that_does_not_work_is_found(command, stage):
    with pytest.raises((AssertionError, KeyError)):
        understand(command, stage)


def test_every_page_is_in_the_readme():
    readme = set(links(ROOT / "README.md"))
    assert {f"docs/{page.name}" for page in PAGES} <= readme


def test_every_experiment_is_in_the_results():
    results = set(links(ROOT / "docs" / "results.md"))
    assert EXPERIMENTS
    assert {f"experiments/{page.name}" for page in EXPERIMENTS} <= results


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_short_pages_stay_short(name):
    assert len((ROOT / name).read_text().splitlines()) <= 150
