"""The command `wsol`: its names, what it answers before PyTorch is imported, what it prints."""

import subprocess
import sys
from unittest import mock

import pytest

import wsol
from tests.helpers.commands import ROOT, console, tool
from wsol.cli.commands.train import COMMON, GROUPS
from wsol.cli.config_files import BASE, CONFIGS, config_names, find_config
from wsol.cli.program import COMMANDS, other, process_words, program, typed
from wsol.data.text_files import flat, read_yaml
from wsol.experiments.train_classifier import make_parser

QUICK = (
    ("--help",),
    ("localise",),
    *((name, "--help") for name in ("localize", "evaluate", "export", "compare", "quickstart")),
    *((name, "--help") for name in ("train", "prepare")),
    ("prepare", "toy", "--help"),
    ("prepare", "cub", "--help"),
    ("localize", "run", "photos", "--outptu", "boxes"),
    ("evaluate", "run", "--treshold", "0.2"),
    ("train", "--lr", "0.1"),
    ("train", "--data.root", "data"),
    ("train", "--config", "toy_arrt", "--output", "run"),
)
_WHOLE = ("--config", "toy_art", "--data.root", "data", "--output", "run")
SCRIPT = """
import contextlib, io, sys
from wsol.cli.commands.__main__ import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["wsol", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as stop:
            assert stop.code == (0 if "--help" in line else 2), line
    heavy = {"torch", "timm", "lightning_fabric", "torchvision"} & set(sys.modules)
    assert not heavy, f"wsol {line} imported {heavy}"
"""


def test_help_and_misspelt_options_do_not_wait_for_pytorch():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(map(" ".join, QUICK)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_list_has_every_command():
    status, text, _ = console("--help")
    assert status == 0
    folder = ROOT / "wsol" / "cli" / "commands"
    assert {file.stem for file in folder.glob("[!_]*.py")} == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert f"  {name} " in text
        assert command.script is None or (ROOT / "tools" / command.script).is_file()
    scripts = {each.name for each in (ROOT / "tools").glob("*.py")}
    assert scripts == {each.script for each in COMMANDS.values()} - {None}


def test_version_and_unknown_commands():
    assert console("--version") == (0, f"wsol {wsol.__version__}\n", "")
    status, _, error = console("localise")
    assert (status, error) == (2, "error: there is no command 'localise'; did you mean localize?")


@pytest.mark.parametrize(
    ("argv", "name", "again", "next_one", "words"),
    [
        (
            ["/env/bin/wsol", "train", "a b"],
            *("wsol train", "wsol train 'a b'", "wsol evaluate x"),
            ["-P", "-m", "wsol.cli.commands", "evaluate", "x"],
        ),
        (
            ["tools/train.py", "a b"],
            *("train.py", "python tools/train.py 'a b'", "python tools/evaluate.py x"),
            ["tools/evaluate.py", "x"],
        ),
    ],
)
def test_messages_name_commands_as_the_user_typed_them(argv, name, again, next_one, words):
    with mock.patch.object(sys, "argv", argv):
        assert (program(), typed(), other("evaluate", "x")) == (name, again, next_one)
        assert process_words("evaluate", ["x"], alike=True) == [sys.executable, *words]
        assert process_words("evaluate", [])[2:] == ["-m", "wsol.cli.commands", "evaluate"]


def test_the_short_help_of_train_knows_the_parsers_options():
    names = {action.dest for action in make_parser()._actions}
    assert {name.split(".")[0] for name in names} | {"help_all"} == GROUPS
    assert set(COMMON) <= names | set(flat(read_yaml(BASE)))
    assert len(COMMON) <= 22
    status, text, _ = tool("train.py", "--help")
    assert (status, text.count("\n  --")) == (0, len(COMMON))
    status, text, _ = tool("train.py", "--help_all")
    assert status == 0
    assert "--lr_multipliers" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.1"], "unrecognized option --lr; did you mean optimizer.init_args.lr?"),
        (["--epoch", "3"], "unrecognized option --epoch; did you mean epochs"),
        (["--batch_size=3"], "unrecognized option --batch_size; did you mean data.batch_size?"),
        (["--zzz", "3"], "unrecognized option --zzz; --help_all lists the options"),
        (["--data.root", "d"], "no --config: give the name of a configuration"),
        (["--config", "toy_arrt"], "there is no configuration toy_arrt; did you mean toy_art"),
        (
            ["--config", "toy_art", "--data.root", "d", "--output", "o", "--objective", "PGD"],
            "; there are AAT, ART,",
        ),
        (
            ["--config", "toy_art", "--data.root", "d", "--output", "o", "--optimizer", "AdmaW"],
            "did you mean AdamW",
        ),
    ],
)
def test_a_mistake_of_train_is_answered_with_near_names(arguments, message, tmp_path):
    status, _, error = console("train", *arguments, cwd=tmp_path)
    assert status == 2
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("localize", "r", "x", "--output", "o", "--pict", "false"), "pictures"),
        (("evaluate", "r", "--batch", "3"), "batch_size"),
        (("export", "r", "--lic", "MIT"), "licence"),
        (("prepare", "toy", "x", "--spec", "3"), "species"),
    ],
)
def test_abbreviated_options_are_refused(words, name, tmp_path):
    status, _, error = console(*words, cwd=tmp_path)
    assert status == 2
    assert error == f"error: unrecognized arguments: {' '.join(words[-2:])}; did you mean {name}?"


def test_configurations_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    assert CONFIGS == ROOT / "configs"
    assert set(config_names()) >= {"toy_art", "methods/art", "base"}
    monkeypatch.chdir(tmp_path)
    assert find_config("methods/art") == ROOT / "configs" / "methods" / "art.yaml"
    (tmp_path / "toy_art").write_text("epochs: 3")
    assert str(find_config("toy_art")) == "toy_art"  # a file of that name comes first
    with pytest.raises(ValueError, match="toy_arrt.yaml; did you mean toy_art"):
        find_config("configs/toy_arrt.yaml")
