"""Downloads of archives: resumed, checked by md5, and unpacked inside their own folder only.

The download is our own because pooch checks files but cannot resume, and pypdl, which does both,
resumes only if the server sends an ETag, needs twice the disk space and brings aiohttp along.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from robust_training.progress import Progress
from wsol.data.cub import find_root

_CHUNK = 1 << 20
_UNPACKED = "a data set that is unpacked already needs no preparation: give its folder to train"


@dataclass(frozen=True)
class Archive:
    """A .tgz file at `url`, and its md5 sum."""

    url: str
    name: str
    md5: str


CUB_IMAGES = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
    "CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
)
CUB_MASKS = Archive(
    "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1",
    "segmentations.tgz",
    "4d47ba1228eae64f2fa547c47bc65255",
)


def prepare_cub(
    root: str | os.PathLike,
    *,
    images: Archive = CUB_IMAGES,
    masks: Archive | None = CUB_MASKS,
    images_archive: str | os.PathLike | None = None,
    masks_archive: str | os.PathLike | None = None,
) -> Path:
    """Makes `root`/CUB_200_2011, with segmentations/ in it unless `masks` is None.

    Folders that exist are kept, and an interrupted download continues where it stopped.

    Args:
        images_archive, masks_archive: Local files to use instead of downloading.

    Returns:
        The folder that holds images.txt.

    Raises:
        ValueError: an archive cannot be downloaded, has the wrong md5 sum, or would write outside
            of its folder.
    """
    root = Path(root)
    folder = root / "CUB_200_2011"
    if not (folder / "images.txt").is_file():
        _unpack_into(root, "CUB_200_2011", _obtain(images, root, images_archive))
    if masks is not None and not (folder / "segmentations").is_dir():
        _unpack_into(folder, "segmentations", _obtain(masks, root, masks_archive))
    return find_root(folder)


def _obtain(archive: Archive, root: Path, local: str | os.PathLike | None) -> Path:
    file = Path(local) if local is not None else root / archive.name
    if local is None and not file.exists():
        root.mkdir(parents=True, exist_ok=True)
        download(archive, file)
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not {archive.name}; {_UNPACKED}")
    if not file.is_file():
        raise ValueError(f"there is no archive {file}")
    with open(file, "rb") as stream:
        actual = hashlib.file_digest(stream, "md5").hexdigest()
    if actual != archive.md5:
        raise ValueError(
            f"{file} has md5 {actual}, not {archive.md5}: it is incomplete, or it is not the "
            f"{archive.name} of {archive.url}. Without a local archive, an empty folder gets "
            f"that file; {_UNPACKED}"
        )
    return file


def download(archive: Archive, file: Path) -> None:
    """Downloads `archive` to `file`; a part of it in `file`.part is continued. Raises ValueError if
    the server cannot be reached, or the connection closed early."""
    part = file.with_name(file.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "wsol"}  # the server refuses requests without one
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            if response.status != 206:  # the server sends the whole file
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
            with (
                open(part, "ab" if have else "wb") as stream,
                Progress.wrapattr(
                    stream, "write", desc=archive.name, total=total, initial=have, **units
                ) as target,
            ):
                shutil.copyfileobj(response, target, _CHUNK)
        if total is not None and part.stat().st_size < total:
            raise ConnectionError("the connection closed early")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing left to send
            raise ValueError(f"cannot download {archive.url}: {error}") from error
    except OSError as error:  # also urllib's URLError
        raise ValueError(
            f"cannot download {archive.url}: {error}; run the command again to continue, or give a "
            "local archive"
        ) from error
    os.replace(part, file)


def _unpack_into(parent: Path, name: str, file: Path) -> None:
    """Unpacks the folder `name` of an archive to parent/name, completely or not at all."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".unpacking-") as temporary:
        try:
            with tarfile.open(file) as tar:
                members = Progress(tar, desc=f"unpacking {file.name}", unit="file", leave=False)
                tar.extractall(temporary, members=members, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"cannot unpack {file}: {error}") from error
        inside = Path(temporary, name)
        if inside.is_symlink() or not inside.is_dir():
            raise ValueError(f"{file} has no folder {name} in it")
        _check_links(file, inside)
        shutil.rmtree(parent / name, ignore_errors=True)
        inside.rename(parent / name)


def _check_links(file: Path, folder: Path) -> None:
    """ValueError if a link leads out of `folder`, which will move out of the temporary folder."""
    # tarfile's data filter only checks that links stay in the temporary folder
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"cannot unpack {file}: the link {path.name} leads out of its folder")
