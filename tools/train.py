"""Train a classifier from image labels: `python tools/train.py --config configs/toy_art.yaml`.

Settings come from configs/base.yaml, then each --config, then dotted options such as
`--objective.weight 1` or `--data.root PATH`. Choose a method by its file: switching the class of an
objective on the command line keeps same-named settings of the file's class.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from jsonargparse import Namespace
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from robust_training.atomic_io import write_text
from robust_training.models.classifier import create_model
from robust_training.models.log_gradient import LogGradient
from robust_training.objectives import Objective
from robust_training.training.checkpoint import LAST
from robust_training.training.compiled import compile_backbone
from robust_training.training.cpu import prepare_cpu
from robust_training.training.fit import Selection, fit
from robust_training.training.interrupts import Stopped
from robust_training.training.nan_guard import replay as replay_batches
from robust_training.training.schedule import Schedule
from robust_training.training.step import Step
from wsol.cli.parser import Parser, run
from wsol.cli.run_folder import lock_folder, require_same_run
from wsol.data.loaders import DataConfig

_BASE = Path(__file__).resolve().parents[1] / "configs" / "base.yaml"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        name: Any timm model.
        pretrained: Download timm's weights.
        weights: Local .safetensors or .pth file instead; its head may have other classes.
        last_stride: 1 keeps the last stage at the resolution before it.
        log_gradient: Log-gradient images in place of RGB; needs a network from scratch.
    """

    name: str = "resnet50"
    pretrained: bool = False
    weights: str | None = None
    last_stride: int | None = None
    log_gradient: LogGradient | None = None


def train(
    output: str,
    data: DataConfig,
    model: ModelConfig,
    objective: Objective,
    optimizer: Callable[[Iterable], Optimizer],
    schedule: Schedule,
    epochs: int,
    seed: int = 0,
    lr_multipliers: dict[str, float] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    replays: int = 1,
    channels_last: bool = False,
    compile: bool = False,
    selection: Selection = "val_accuracy",
    save_minutes: float = 10.0,
    skip_nonfinite: int = 0,
    *,
    resume: bool,
    replay: str | None,
    fabric: Fabric,
    save_config: Callable[[], None],
) -> None:
    """Train a classifier and keep it in `output`.

    Args:
        output: The run's folder; a new one unless the run is resumed.
        data: Where the images are and how they are fed.
        model: Which network.
        objective: What is minimised.
        optimizer: Any torch optimizer.
        schedule: Learning rate over time.
        epochs: Passes over the training images.
        seed: Decides everything random.
        lr_multipliers: Regular expression on parameter names -> factor on the learning rate.
        clip_norm: Largest gradient norm.
        accumulate: Batches whose mean gradient makes one step.
        replays: Steps in a row on each batch, an attack going on where the step before left it.
        channels_last: Memory format that GPUs prefer.
        compile: Run the network as a compiled program, with finite-difference curvature.
        selection: Epoch that becomes best/: the highest validation accuracy, or the last.
        save_minutes: How often last.ckpt is written within an epoch.
        skip_nonfinite: Steps of the run that may be skipped because a term or a gradient was not
            finite.
        resume: Continue from output/last.ckpt.
        replay: Instead of training, compute again a batch that was not finite: its file.
        fabric: Devices, precision and processes.
        save_config: Called once training is about to begin.
    """
    training, validation = data.training_loader(), data.loader("val")
    classes = training.dataset.classes
    fabric.seed_everything(seed, verbose=False)
    network = create_model(
        model.name,
        len(classes),
        pretrained=model.pretrained,
        weights=model.weights,
        last_stride=model.last_stride,
        image_size=data.image_size,
        log_gradient=model.log_gradient,
    )
    network.class_names = classes
    if compile:
        compile_backbone(network.to(fabric.device))
    if replay is not None:
        _replay(replay, Step(network, objective), fabric)
        return
    fit(
        fabric,
        network,
        objective,
        training,
        validation,
        output,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        seed=seed,
        lr_multipliers=lr_multipliers,
        clip_norm=clip_norm,
        accumulate=accumulate,
        replays=replays,
        channels_last=channels_last,
        selection=selection,
        save_minutes=save_minutes,
        skip_nonfinite=skip_nonfinite,
        resume=resume,
        on_start=save_config,
    )
    fabric.print(f"the trained model is in {Path(output) / 'best'}")


def _replay(file: str, step: Step, fabric: Fabric) -> None:
    """Print what is not finite in a batch that training kept."""
    if fabric.device.type == "cpu":
        prepare_cpu()
    step = fabric.setup_module(step)
    for found in replay_batches(file, step, fabric):
        print(f"images: {', '.join(found.names)}")
        if found.pixels:
            print(f"pixels that are not finite: {', '.join(found.pixels)}")
        for name, value in found.terms.items():
            print(f"{name}: {value}{'' if math.isfinite(value) else '  <- not finite'}")
        if found.gradients:
            first, count = found.gradients[0], len(found.gradients)
            print(f"parameters whose gradient is not finite: {count}, the first {first}")


def main() -> None:
    parser = Parser(prog="train.py", description=__doc__, default_config_files=[str(_BASE)])
    parser.add_argument("--config", action="config", help="YAML file; later ones override")
    parser.add_argument("--resume", action="store_true", help="continue from output/last.ckpt")
    parser.add_argument(
        "--allow_changes", action="store_true", help="resume with settings that make it another run"
    )
    parser.add_argument(
        "--replay", type=str | None, help="compute a batch again that was not finite: its file"
    )
    own = {"resume", "replay", "fabric", "save_config"}
    parser.add_function_arguments(train, fail_untyped=False, skip=own)
    parser.add_class_arguments(Fabric, "fabric", fail_untyped=False)
    settings = parser.parse_args()
    try:
        built = parser.instantiate(settings)
    except (MisconfigurationException, RuntimeError) as error:
        raise ValueError(f"the devices asked for are not there: {error}") from error
    fabric = built.fabric
    fabric.launch()
    with _alone(fabric, Path(settings.output), settings.replay is not None):
        try:
            _run(parser, settings, built)
        except Stopped:
            if fabric.is_global_zero:  # whose exit status is the run's
                raise


@contextmanager
def _alone(fabric: Fabric, output: Path, reads_only: bool) -> Iterator[None]:
    """Keeps other runs out of `output`; the first process does so for all."""
    with ExitStack() as stack:
        problem = None
        if fabric.is_global_zero and not reads_only:
            try:
                stack.enter_context(lock_folder(output))
            except (ValueError, OSError) as error:
                problem = str(error)
        problem = fabric.broadcast(problem)
        if problem is not None:
            raise ValueError(problem)
        yield


def _run(parser: Parser, settings: Namespace, built: Namespace) -> None:
    output, fabric = Path(settings.output), built.fabric
    config, resume = output / "config.yaml", settings.resume
    kept, given = settings.clone(), built.clone()
    for name in ("config", "resume", "allow_changes", "replay"):
        for each in (kept, given):
            each.pop(name, None)
    text = parser.dump(kept, skip_validation=True, skip_unset=False)
    if settings.replay is None and (output / LAST).exists() and not resume:
        raise ValueError(f"{output} already holds a run; --resume continues it")
    if resume and config.exists():
        if not settings.allow_changes:
            defaults = yaml.safe_load(parser.dump(parser.get_defaults(), skip_validation=True))
            require_same_run(config, yaml.safe_load(text), defaults)
        if not (output / LAST).exists():
            fabric.print(f"{output} holds no checkpoint yet: the run starts from its beginning")
            resume = False

    def save_config() -> None:
        if fabric.is_global_zero:
            write_text(config, text)

    train(**given, resume=resume, replay=settings.replay, save_config=save_config)


if __name__ == "__main__":
    run(main)
