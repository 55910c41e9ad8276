"""Options and settings that are text stay text, on the command line and in files."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import ROOT, tool
from wsol.cli.parser import Parser

TEXTS = [
    "null",
    "~",
    "Null",
    "# nothing",
    "1e-3",
    "5e3",
    "2.5",
    "007",
    "0x10",
    "1_0",
    "1:30",
    "yes",
]
TEXTS += ["on", "No", "true", "2024-01-01", ".inf", "[a", "[a]", "{a: b}", "a: b", "a:", "!!int 3"]
TEXTS += [
    "&a b",
    "*a",
    "@a",
    "- a",
    "<<",
    "=",
    "",
    " ",
    "é # ☃",
    "a\nb",
    "'a'",
    '"a"',
    "\udcff",
    "%a",
]


class Base:
    """A kind of value for an option."""


class Named(Base):
    def __init__(self, name: str | None = None, factor: float = 1.0) -> None:
        self.name = name
        self.factor = factor


@dataclass
class Place:
    root: str = "x"
    weights: str | Path | None = None
    rate: float | None = 0.5


@pytest.fixture(scope="module")
def parser():
    parser = Parser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--label", type=str | None, default=None)
    parser.add_argument("--names", type=str, nargs="*", default=[])
    parser.add_class_arguments(Place, "place")
    parser.add_argument("--kind", type=Base | None, default=None)
    return parser


def texts_of(settings):
    place, kind = settings.place, settings.kind.init_args
    return [settings.label, *settings.names, place.root, place.weights, kind.name]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_text_and_a_written_file_is_read_as_it_was(parser, tmp_path, text):
    named = [f"--{name}={text}" for name in ("label", "place.root", "place.weights")]
    kind = {"class_path": "Named", "init_args": {"name": text, "factor": 1e-3}}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"kind": kind}))
    options = [f"--config={file}", *named, "--names", text, text, "--place.rate=null"]
    settings = parser.parse_args(options)
    assert texts_of(settings) == [text] * 6
    assert (settings.kind.init_args.factor, settings.place.rate) == (1e-3, None)
    assert parser.instantiate(settings).kind.name == text
    file.write_text(parser.dump(settings, skip_unset=False), encoding="utf-8")
    again = parser.parse_args(["--config", str(file)])
    assert texts_of(again) == [text] * 6
    assert (again.kind.init_args.factor, again.place.rate) == (1e-3, None)
    assert yaml.safe_load(file.read_text())["place"]["root"] == text  # as other readers take it


def test_what_yaml_calls_nothing_or_a_number_needs_quotes_in_a_file(parser, tmp_path, capsys):
    """Without quotes null is None, and 12 is a number; 1e-3 and dates are text."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "label: null\nnames: [2024-01-01, 1e-3, 'null']\n"
        "place: {root: 1e-3, weights: ~, rate: 1e-3}\n"
        "kind: {class_path: Named, init_args: {name: null}}"
    )
    settings = parser.parse_args(["--config", str(file)])
    assert texts_of(settings) == [None, "2024-01-01", "1e-3", "null", "1e-3", None, None]
    assert settings.place.rate == 1e-3
    file.write_text("place: {root: 12}")
    with pytest.raises(SystemExit):
        parser.parse_args(["--config", str(file)])
    assert capsys.readouterr().err.endswith("Got value: 12; in a file this text needs quotes\n")


@pytest.mark.parametrize("names", [("1e-3", "null", "2024-01-01"), ("on", "# x", "null")])
def test_a_run_of_any_name_is_found_again_by_its_settings(tmp_path, names):
    """Names of the run, its data set and its weights, which `null` switches off in a file only."""
    options = ("output", "data.root", "model.weights")
    own = [f"--{option}={name}" for option, name in zip(options, names, strict=True)]
    base = ("--config", ROOT / "configs" / "toy_standard.yaml")
    status, first, error = tool("train.py", *base, *own, "--print_config")
    assert status == 0, error
    (tmp_path / "config.yaml").write_text(first)
    status, again, error = tool("train.py", "--config", tmp_path / "config.yaml", "--print_config")
    assert (status, again) == (0, first), error
    settings = yaml.safe_load(again)
    found = (settings["output"], settings["data"]["root"], settings["model"]["weights"])
    assert found == names
