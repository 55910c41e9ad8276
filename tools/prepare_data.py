"""Draw or download a data set.

`python tools/prepare_data.py toy ROOT` draws the toy birds. `python tools/prepare_data.py cub ROOT`
downloads CUB-200-2011 (1.2 GB, for non-commercial research and education) and its masks, or takes
local archives.
"""

from wsol.cli.parser import Parser, run
from wsol.data.download import CUB_IMAGES, CUB_MASKS, prepare_cub
from wsol.data.toy_birds.writing import write_toy_birds


def main() -> None:
    parser = Parser(prog="prepare_data.py", description=__doc__)
    commands = parser.add_subcommands(dest="data")
    toy = Parser(description="Draw the toy birds.")
    toy.add_argument("root", help="folder in which CUB_200_2011 is made")
    toy.add_function_arguments(write_toy_birds, skip={"root"})
    commands.add_subcommand("toy", toy)
    cub = Parser(description="Download and unpack CUB-200-2011.")
    cub.add_argument("root", help="folder in which CUB_200_2011 is made")
    cub.add_argument(
        "--archive", type=str, default=None, help="local CUB_200_2011.tgz, instead of the download"
    )
    cub.add_argument(
        "--masks_archive",
        type=str,
        default=None,
        help="local segmentations.tgz, instead of the download",
    )
    cub.add_argument("--masks", type=bool, default=True, help="also the segmentation masks")
    commands.add_subcommand("cub", cub)
    settings = parser.parse_args()
    PREPARE[settings.data](settings[settings.data])


def _toy(settings) -> None:
    folder = write_toy_birds(**settings.as_dict())
    print(f"toy birds are in {folder}")


def _cub(settings) -> None:
    masks = CUB_MASKS if settings.masks else None
    folder = prepare_cub(
        settings.root,
        images=CUB_IMAGES,
        masks=masks,
        images_archive=settings.archive,
        masks_archive=settings.masks_archive,
    )
    print(f"CUB-200-2011 is in {folder}")


PREPARE = {"toy": _toy, "cub": _cub}

if __name__ == "__main__":
    run(main)
