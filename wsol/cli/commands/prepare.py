"""Draw, download or check a data set.

`python tools/prepare_data.py toy ROOT` draws the toy birds. `python tools/prepare_data.py cub ROOT`
downloads CUB-200-2011 (1.2 GB, for non-commercial research and education) and its masks, or takes
local archives. `python tools/prepare_data.py verify ROOT` checks a data set in any layout.
"""

from pathlib import Path

from wsol.annotations.verification import verify_data_set
from wsol.cli.parser import Parser, run
from wsol.data.download import CUB_MASKS, prepare_cub
from wsol.data.toy_birds.writing import write_toy_birds


def cub(
    root: str,
    *,
    archive: str | None = None,
    masks_archive: str | None = None,
    masks: bool = True,
) -> Path:
    """Download and unpack CUB-200-2011.

    Args:
        archive: Local CUB_200_2011.tgz, instead of the download.
        masks_archive: Local segmentations.tgz, instead of the download.
        masks: Also the segmentation masks.
    """
    return prepare_cub(
        root,
        masks=CUB_MASKS if masks else None,
        images_archive=archive,
        masks_archive=masks_archive,
    )


_MADE = "the data set is in {}"
PREPARE = {"toy": (write_toy_birds, _MADE), "cub": (cub, _MADE), "verify": (verify_data_set, "{}")}


def main() -> None:
    parser = Parser(prog="prepare_data.py", description=__doc__)
    commands = parser.add_subcommands(dest="data")
    for name, (prepare, _) in PREPARE.items():
        command = Parser(description=prepare.__doc__.splitlines()[0])
        command.add_argument(
            "root", help="folder in which CUB_200_2011 is made, or the data set to check"
        )
        command.add_function_arguments(prepare, skip={"root"})
        commands.add_subcommand(name, command)
    settings = parser.parse_args()
    prepare, sentence = PREPARE[settings.data]
    print(sentence.format(prepare(**vars(settings[settings.data]))))


if __name__ == "__main__":
    run(main)
