"""Which layout a data set has."""

from pathlib import Path

from wsol.data.cub import CUB200, find_root
from wsol.data.image_folder import ImageFolder


def find_layout(root: str | Path) -> type[CUB200] | type[ImageFolder]:
    """CUB-200-2011's, where images.txt is found; else a plain folder, where train/ is.

    Raises:
        ValueError: neither is; says what was looked for.
    """
    try:
        find_root(Path(root))
    except ValueError as error:
        if (Path(root) / "train").is_dir():
            return ImageFolder
        raise ValueError(
            f"no data set at {root}: there is no images.txt in it (CUB-200-2011's layout), and no "
            "folder train with a folder of images for each class"
        ) from error
    return CUB200
