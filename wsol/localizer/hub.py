"""Trained localizers on the Hugging Face hub, or any server with the same interface."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import HTTPError

from wsol.data.text_files import first_cause
from wsol.localizer.principal_component import COMPONENT
from wsol.localizer.saved_models import UNBOXED

PREFIX = "hf-hub:"
_FILES = (
    *("config.json", "model.safetensors", "metrics.json", UNBOXED, COMPONENT),
    *("detector.json", "head.safetensors"),
)
_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*/[\w.-]+")


def local_folder(place: str | os.PathLike) -> Path:
    """Return `place` if it is a path; download the model if it is a name on the hub.

    Args:
        place: A path, `hf-hub:user/name`, or `user/name` if there is no such path.

    Raises:
        ValueError: the hub cannot be reached or has no such model.
    """
    name = str(place).removeprefix(PREFIX)
    is_path = not str(place).startswith(PREFIX)
    if is_path and (Path(place).exists() or not _NAME.fullmatch(name)):
        return Path(place)
    missing = f"there is no folder {place} here, and " if is_path else ""
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, HTTPError, ValueError) as error:
        reason = first_cause(error).splitlines()[0]
        raise ValueError(
            f"{missing}no model {name} came from {HfApi().endpoint}: {reason}"
        ) from error


def push(files: Mapping[str, Path | str], name: str) -> str:
    """Upload files as the model `user/name` on the hub, which is created if it is missing.

    The token comes from `hf auth login` or HF_TOKEN.

    Args:
        files: Name on the hub -> local file, or text.

    Returns:
        The model's URL.

    Raises:
        ValueError: the hub cannot be reached, or refuses.
    """
    api = HfApi()
    name = name.removeprefix(PREFIX)
    uploads = [
        CommitOperationAdd(place, content.encode() if isinstance(content, str) else content)
        for place, content in files.items()
    ]
    try:
        url = api.create_repo(name, exist_ok=True)
        api.create_commit(name, uploads, commit_message="Upload a localizer")
    except (OSError, HTTPError, ValueError) as error:
        raise ValueError(
            f"cannot push {name} to {api.endpoint}: {first_cause(error).splitlines()[0]}"
        ) from error
    return str(url)
