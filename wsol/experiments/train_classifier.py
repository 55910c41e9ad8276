"""Trains a classifier as the options of `wsol train` say."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from robust_training import TrainingSettings, create_model, fit
from robust_training.atomic_io import write_text
from robust_training.devices import prepare_device
from robust_training.objectives import Objective
from robust_training.training.checkpoint import LAST
from robust_training.training.interrupts import Stopped
from robust_training.training.log import Row
from robust_training.training.nan_guard import replay
from robust_training.training.step import Step
from robust_training.training.validation import training_notes
from wsol.cli.config_files import BASE, find_config
from wsol.cli.parser import Parser
from wsol.cli.program import other
from wsol.cli.run_folder import lock_folder, require_same_run
from wsol.data.loaders import DataConfig
from wsol.heatmaps.methods import LOCALIZER, find_method
from wsol.localizer.principal_component import COMPONENT
from wsol.localizer.saved_models import UNBOXED, load_classifier
from wsol.localizer.unboxed_threshold import run_unboxed_threshold

_NOT_OF_THE_RUN = ("config", "resume", "allow_changes", "replay")  # options that are not kept


class _Config(ActionConfigFile):
    """Reads a YAML file. It may be the name of a configuration that comes with the package."""

    def __call__(
        self, parser: Any, settings: Namespace, value: str, option: str | None = None
    ) -> None:
        super().__call__(parser, settings, str(find_config(value)), option)


def make_parser() -> Parser:
    parser = Parser(default_config_files=[str(BASE)])
    parser.add_argument("--config", action=_Config, help="name or YAML file; later ones override")
    parser.add_argument("--resume", action="store_true", help="continue from output/last.ckpt")
    parser.add_argument(
        "--allow_changes", action="store_true", help="resume with settings that make it another run"
    )
    parser.add_argument(
        "--replay", type=str | None, help="file of a batch that was not finite: compute it again"
    )
    parser.add_argument(
        "--output", type=str, required=True, help="the run's folder; new unless it is resumed"
    )
    parser.add_argument(
        "--logger", type=Literal["csv", "tensorboard", "wandb"], nargs="*", default=[]
    )
    parser.add_class_arguments(DataConfig, "data")
    parser.add_function_arguments(create_model, "model", skip={"num_classes", "image_size"})
    parser.add_argument("--objective", type=Objective, required=True, help="the loss to minimise")
    parser.add_class_arguments(TrainingSettings, fail_untyped=False)
    parser.add_class_arguments(Fabric, "fabric", fail_untyped=False)
    return parser


def train_classifier(arguments: list[str]) -> None:
    """Trains a run, continues it or replays a batch.

    Raises:
        ValueError: An option, a file or a setting is wrong, or the output folder holds another run.
        Stopped: Ctrl-C or SIGTERM was received, and the run is saved.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        built = parser.instantiate(_with_loggers(options))
    except (MisconfigurationException, RuntimeError) as error:
        raise ValueError(f"the devices asked for are not there: {error}") from error
    fabric, output = built.fabric, Path(options.output)
    fabric.launch()
    try:
        if options.replay is None:
            with _only_run_in(output, fabric):
                resume, save_config = _open_run(parser, options, output, fabric)
                log = train(built, resume, save_config)
                if fabric.is_global_zero:
                    for name in (UNBOXED, COMPONENT):  # of an earlier model
                        (output / "best" / name).unlink(missing_ok=True)
                    model = load_classifier(output).to(fabric.device).eval()
                    run_unboxed_threshold(output, model, find_method(LOCALIZER), LOCALIZER)
            for line in training_notes(log):
                fabric.print(f"note: {line}")
            for logger in fabric.loggers:
                logger.finalize("success")
            fabric.print(_outcome(log, options.selection, output))
        else:
            print_replayed(built, options.replay)
    except Stopped:
        if fabric.is_global_zero:  # the run's exit status is that of the first process
            raise


def _with_loggers(options: Namespace) -> Namespace:
    """The options, in which Fabric gets the loggers that --logger names. Raises ValueError if a
    logger's package is not installed."""
    place = {"root_dir": options.output}
    fabrics, lightnings = "lightning_fabric", "pytorch_lightning"
    known = {
        "csv": (fabrics, "CSVLogger", {**place, "name": "csv", "flush_logs_every_n_steps": 1}),
        "tensorboard": (fabrics, "TensorBoardLogger", {**place, "name": "tensorboard_logger"}),
        "wandb": (
            lightnings,
            "WandbLogger",
            {"save_dir": options.output, "name": Path(options.output).name, "project": "wsol"},
        ),
    }
    loggers = []
    for name in options.logger:
        package, kind, own = known[name]
        if not all(map(find_spec, (package, *({"wandb"} & {name})))):
            raise ValueError(f"--logger {name} needs more packages: pip install 'wsol[{name}]'")
        path = f"{package}.loggers.{kind}"
        loggers.append(Namespace(class_path=path, init_args=Namespace(**own)))
    given = options.clone()
    if loggers:
        given.fabric.loggers = loggers
    return given


def _outcome(log: list[Row], selection: str, output: Path) -> str:
    """The end of a training in words: accuracy, time, and the next command."""
    best = log[-1]
    if selection == "val_accuracy":  # of equal epochs the later one, as `fit` keeps it
        best = max(reversed(log), key=lambda row: row["val_accuracy"])
    time = timedelta(seconds=round(sum(row["seconds"] for row in log)))
    return (
        f"the trained model is in {output / 'best'}: validation accuracy "
        f"{best['val_accuracy']:.1%} after epoch {best['epoch']:g} of {log[-1]['epoch']:g}, {time} "
        "in all\n"
        f"next: {other('evaluate', output)}"
    )


def train(built: Namespace, resume: bool, save_config: Callable[[], None]) -> list[Row]:
    """Train as the options say, which are instantiated in `built`. Return the rows of log.csv."""
    settings = TrainingSettings(
        **{each.name: built[each.name] for each in fields(TrainingSettings)}
    )
    training, validation = built.data.training_loader(), built.data.loader("val")
    built.fabric.seed_everything(settings.seed, verbose=False)
    model = create_model(
        num_classes=len(training.dataset.classes), image_size=built.data.image_size, **built.model
    )
    model.class_names = training.dataset.classes
    return fit(
        model,
        built.objective,
        training,
        validation,
        built.output,
        settings,
        fabric=built.fabric,
        resume=resume,
        on_start=save_config,
    )


def print_replayed(built: Namespace, file: str) -> None:
    """Compute the batches of `file` again, and print which values are not finite."""
    fabric, classes = built.fabric, built.data.training_loader().dataset.classes
    model = create_model(num_classes=len(classes), image_size=built.data.image_size, **built.model)
    prepare_device(fabric.device)
    step = fabric.setup_module(Step(model, built.objective))
    for line in replay(file, step, fabric):
        print(line)


@contextmanager
def _only_run_in(output: Path, fabric: Fabric) -> Iterator[None]:
    """Keep other runs out of `output`; the first process does so for all."""
    with ExitStack() as stack:
        problem = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(lock_folder(output))
            except (ValueError, OSError) as error:
                problem = str(error)
        problem = fabric.broadcast(problem)
        if problem is not None:
            raise ValueError(problem)
        yield


def _open_run(
    parser: Parser, options: Namespace, output: Path, fabric: Fabric
) -> tuple[bool, Callable[[], None]]:
    """Whether there is a checkpoint to resume, and a function that writes config.yaml. Raises
    ValueError if the folder holds another run, or one that --resume was not given for."""
    kept, config, resume = options.clone(), output / "config.yaml", options.resume
    for name in _NOT_OF_THE_RUN:
        kept.pop(name, None)
    text = parser.dump(kept, skip_validation=True, skip_unset=False)
    if (output / LAST).exists() and not resume:
        raise ValueError(f"{output} already holds a run; --resume continues it")
    if resume and config.exists():
        if not options.allow_changes:
            defaults = yaml.safe_load(parser.dump(parser.get_defaults(), skip_validation=True))
            require_same_run(config, yaml.safe_load(text), defaults)
        if not (output / LAST).exists():
            fabric.print(f"{output} holds no checkpoint yet: the run starts from its beginning")
            resume = False

    def save_config() -> None:
        if fabric.is_global_zero:
            write_text(config, text)

    return resume, save_config
