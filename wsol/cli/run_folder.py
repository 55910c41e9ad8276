"""A run's folder: one process at a time trains in it, with the settings that it began with."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from robust_training.atomic_io import write_texts
from robust_training.training.checkpoint import LAST
from wsol.data.loaders import current_settings
from wsol.data.text_files import flat, read_json, read_yaml

# A resumed run may change these settings, and all settings below them. They say where and how long
# it runs, not what it computes; `accumulate` makes up for another number of processes. `compile`
# is an option of earlier versions.
MAY_CHANGE = (
    *("accumulate", "channels_last", "compile", "data.num_workers", "epochs", "logger", "output"),
    *("fabric.accelerator", "fabric.devices", "fabric.loggers", "fabric.num_nodes"),
    *("fabric.strategy", "save_minutes", "skip_nonfinite"),
)
TRAINED_WITH = "trained_with.json"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other processes out of it until the context ends or this process
    dies. A new folder that is still empty at the end is removed. Raises ValueError if another
    process has locked it."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another process is training in {folder}: wait for it, or choose another output"
        ) from error
    try:
        yield
    finally:
        # safe before the release, because no process waits for the lock: a locked folder is refused
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        for each in made:
            if not any(each.iterdir()):
                each.rmdir()


def require_same_run(config: Path, now: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """ValueError if a run's config.yaml has other settings than `now`; the message names them."""
    changed = changed_settings(current_settings(read_yaml(config)), now, defaults)
    if changed:
        raise ValueError(
            f"{config.parent} holds another run: {'; '.join(changed)} (--allow_changes continues "
            "it with the new settings)"
        )


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Settings that make a run another one, each as `name: old -> new`.

    Args:
        before: Nested settings that the run began with.
        now: Nested settings of today.
        defaults: Values of settings that did not exist when the run began.
    """
    old, new, standard = (
        {name: _class_name(value) for name, value in flat(settings).items() if value != {}}
        for settings in (before, now, defaults)
    )
    old |= {name: standard[name] for name in new if name in standard and name not in old}
    changed = [
        name
        for name in dict.fromkeys((*old, *new))
        if not _is_below(name, MAY_CHANGE) and old.get(name) != new.get(name)
    ]
    # another class has other settings
    kinds = [f"{n.removesuffix('class_path')}init_args" for n in changed if "class_path" in n]
    return [
        f"{name}: {old.get(name, 'not set')} -> {new.get(name, 'not set')}"
        for name in changed
        if not _is_below(name, kinds)
    ]


def _class_name(value: Any) -> Any:
    """A class of this project without its module, which another version may have under another
    name; any other value as it is."""
    is_ours = isinstance(value, str) and re.fullmatch(r"(robust_training|wsol)(\.\w+)+", value)
    return value.rpartition(".")[2] if is_ours else value


def _is_below(name: str, groups: Iterable[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def record_settings(
    folder: Path, settings: Mapping[str, Any], *, results: str = f"**/{LAST}"
) -> None:
    """Write trained_with.json: the settings, JSON values, with which the runs below `folder` train.
    If files of the pattern `results` exist, something has been trained. Then raises ValueError if
    its settings differ; the message names one."""
    file = folder / TRAINED_WITH
    if file.is_file() and any(folder.glob(results)):
        before = read_json(file)
        if not isinstance(before, dict):
            raise ValueError(f"{file} is damaged")
        changed = next((name for name in settings if settings[name] != before.get(name)), None)
        if changed is not None:
            runs = f"of an earlier version, which did not record {changed}"
            if changed in before:
                value = str(before[changed])
                was = f" {value}" if len(value) <= 64 and "\n" not in value else ""
                runs = f"with another {changed}{was}"
            raise ValueError(f"{folder} holds runs {runs}; choose another --output")
    write_texts(folder, {file.name: json.dumps(settings, indent=2)})


def fingerprint(content: Path | str) -> str:
    """SHA-256 of a file's bytes, or of a text."""
    data = content.read_bytes() if isinstance(content, Path) else content.encode()
    return hashlib.sha256(data).hexdigest()
