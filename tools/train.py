"""Train a classifier from image labels: `python tools/train.py --config configs/toy_art.yaml`.

Settings come from configs/base.yaml, then each --config, then dotted options such as
`--objective.weight 1` or `--data.root PATH`. Choose a method by its file: switching the class of an
objective on the command line keeps same-named settings of the file's class.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from robust_training.checkpoint import LAST
from robust_training.compiled import compile_backbone
from robust_training.front import LogGradient
from robust_training.model import create_model
from robust_training.objectives import Objective
from robust_training.schedule import Schedule
from robust_training.trainer import Selection, fit
from wsol.cli import Parser, run
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
        front: Log-gradient images in place of RGB; needs a network from scratch.
    """

    name: str = "resnet50"
    pretrained: bool = False
    weights: str | None = None
    last_stride: int | None = None
    front: LogGradient | None = None


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
    *,
    resume: bool,
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
        resume: Continue from output/last.ckpt.
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
        front=model.front,
    )
    network.class_names = classes
    if compile:
        compile_backbone(network.to(fabric.device))
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
        resume=resume,
        on_start=save_config,
    )
    fabric.print(f"the trained model is in {Path(output) / 'best'}")


def main() -> None:
    parser = Parser(prog="train.py", description=__doc__, default_config_files=[str(_BASE)])
    parser.add_argument("--config", action="config", help="YAML file; later ones override")
    parser.add_argument("--resume", action="store_true", help="continue from output/last.ckpt")
    own = {"resume", "fabric", "save_config"}
    parser.add_function_arguments(train, fail_untyped=False, skip=own)
    parser.add_class_arguments(Fabric, "fabric", fail_untyped=False)
    settings = parser.parse_args()
    output = Path(settings.output)
    if (output / LAST).exists() and not settings.resume:
        raise ValueError(f"{output} already holds a run; --resume continues it")
    try:
        built = parser.instantiate(settings)
    except (MisconfigurationException, RuntimeError) as error:
        raise ValueError(f"the devices asked for are not there: {error}") from error
    fabric = built.pop("fabric")
    built.pop("config", None)
    fabric.launch()

    def save_config() -> None:
        if fabric.is_global_zero:
            output.mkdir(parents=True, exist_ok=True)
            saved = settings.clone()
            saved.pop("resume")
            parser.save(
                saved,
                output / "config.yaml",
                skip_validation=True,
                skip_unset=False,
                overwrite=True,
            )

    train(**built, fabric=fabric, save_config=save_config)


if __name__ == "__main__":
    run(main)
