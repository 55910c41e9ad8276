"""ROAR and KAR: does a network that is trained anew need the pixels that an attribution ranks high?

    interpret.py RUN [RUN ...] --config configs/toy_standard.yaml --output DIR --seeds 0 1 2
        -- --model.name resnet18 --epochs 15

For each run's model, attribution and fraction of pixels: replace them in all images (ROAR), or all
others (KAR), train the network of --config and of the options after `--` from scratch on these
images, and compare its accuracy with that after random pixels. Every training is a folder below
DIR; finished ones are not repeated. Writes interpretability.md, interpretability.json,
interpretability.png (accuracy against the fraction of pixels) and trade_off.png (area against the
accuracy of the models under study; name them in the order of their attack's radius).
"""

from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from wsol.cli.config_files import find_config
from wsol.cli.devices import find_device
from wsol.cli.parser import DEVICE, Parser, split_options
from wsol.cli.program import typed
from wsol.experiments.remove_and_retrain import RemoveAndRetrain, write_retraining
from wsol.robustness.roar import FRACTIONS


def main(arguments: list[str]) -> None:
    own, options = split_options(arguments)
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders of train.py")
    parser.add_argument("--config", nargs="+", required=True, help="of the networks trained anew")
    parser.add_argument("--output", type=str, required=True)
    parser.add_argument(
        "--attributions", type=str, nargs="+", default=["gradient", "gradient_x_input"]
    )
    parser.add_argument(
        "--fractions", type=float, nargs="+", default=list(FRACTIONS), help="of the pixels"
    )
    parser.add_argument("--modes", type=str, nargs="+", default=["roar", "kar"])
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="trainings at once")
    parser.add_argument("--device", type=str, default=DEVICE, help="for ranking and scoring")
    settings = parser.parse_args(own)
    output = Path(settings.output)
    study = RemoveAndRetrain(
        runs=[Path(name) for name in settings.runs],
        output=output,
        configs=list(map(find_config, settings.config)),
        options=options,
        attributions=settings.attributions,
        fractions=settings.fractions,
        modes=settings.modes,
        seeds=settings.seeds,
        device=find_device(settings.device),
        jobs=settings.jobs,
    )
    table = write_retraining(output, study.run(), typed())
    print(f"{table}\n\nthe results are in {output}")
