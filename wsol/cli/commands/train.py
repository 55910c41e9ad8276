"""Trains a classifier from image labels:

    wsol train --config toy_art --data.root DATA --output RUN

Settings come from base.yaml, then each --config, then the options. A configuration is a YAML file,
or the name of one that comes with this package. Choose a method by its configuration: switching the
class of an objective on the command line keeps same-named settings of the configuration's class.
"""

from collections.abc import Iterable

from wsol.cli.config_files import BASE, config_names, find_config
from wsol.cli.program import program
from wsol.data.names import nearest
from wsol.data.text_files import flat, read_yaml

# What people use, with a word on each. The complete parser needs PyTorch.
COMMON = {
    "config": "YAML file, or name of a configuration; may be repeated",
    "data.root": "folder of the data set",
    "output": "folder of the run; new unless it is resumed",
    "resume": "continue the run in --output from its last checkpoint",
    "epochs": "passes over the training images",
    "seed": "seed of everything random",
    "data.image_size": "side of the network's input, in pixels",
    "data.batch_size": "images in a step of each process",
    "data.num_workers": "processes that load images; 0: none",
    "data.val_fraction": "part of the training images held out for validation",
    "model.name": "network of timm, such as resnet50",
    "model.pretrained": "true: start from timm's pretrained weights, which are downloaded",
    "model.weights": "file of weights to start from",
    "objective": "training method, such as Standard or ART, in place of the configuration's",
    "optimizer.init_args.lr": "learning rate",
    "accumulate": "batches in a step of the optimizer",
    "selection": "epoch to keep: val_accuracy (the best) or last",
    "fabric.accelerator": "cpu, cuda, mps or auto",
    "fabric.devices": "number of devices, each with its own process",
    "fabric.precision": "such as 16-mixed or bf16-mixed",
    "logger": "experiment loggers, any of csv, tensorboard, wandb",
    "print_config": "print all settings and stop",
}
# First parts of the names of all options.
GROUPS = {name.split(".")[0] for name in COMMON} | {
    *("allow_changes", "balance", "channels_last", "clip_norm", "help", "help_all"),
    "lr_multipliers",
    *("optimizer", "replay", "replays", "save_minutes", "schedule", "skip_nonfinite"),
}
_FLAGS = ("resume", "print_config")


def main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments) and "--help_all" not in arguments:
        print(_short_help())
        return
    _require_known(arguments)

    from wsol.experiments.train_classifier import train_classifier

    train_classifier(["--help" if each == "--help_all" else each for each in arguments])


def _short_help() -> str:
    rows = [
        (f"--{name}" + ("" if name in _FLAGS else f" {name.split('.')[-1].upper()}"), text)
        for name, text in COMMON.items()
    ]
    options = "\n".join(f"  {option:37} {text}" for option, text in rows)
    return (
        f"usage: {program()} --config CONFIG --data.root ROOT --output OUTPUT ...\n\n{__doc__}\n"
        f"{options}\n\nAll options: --help_all; those of a class: --objective.help ART.\n"
        f"Configurations: {', '.join(config_names())}"
    )


def _require_known(arguments: list[str]) -> None:
    """Finds common mistakes before PyTorch is imported, which takes seconds. Raises ValueError if
    an option is not known, a configuration is not there, or none is given."""
    names = [each[2:].partition("=")[0] for each in arguments if each.startswith("--")]
    for name in names:
        if name.split(".")[0] not in GROUPS:
            raise ValueError(f"unrecognized option --{name}{_options_like(name)}")
    if not {"config", "objective", "objective.class_path", "help_all"} & set(names) and not any(
        name.endswith(".help") for name in names
    ):
        raise ValueError(
            "no --config: give the name of a configuration, such as toy_standard (--help lists "
            "them), or a YAML file; RUN/config.yaml continues a run"
        )
    following = zip(arguments, [*arguments[1:], ""], strict=True)
    for file in (value for option, value in following if option == "--config"):
        find_config(file)


def _options_like(name: str) -> str:
    """The end of a message about an unknown option: options with a similar last part."""
    known: Iterable[str] = (*COMMON, *flat(read_yaml(BASE)), *GROUPS)
    by_last = {each.split(".")[-1]: each for each in known}
    near = [by_last[each] for each in nearest(name.split(".")[-1], list(by_last))]
    return f"; did you mean {', '.join(near)}?" if near else "; --help_all lists the options"
