"""One run, one process at a time, and with the settings that it had."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wsol.data.loaders import current_settings
from wsol.data.text_files import flat, read_yaml

# A run may go on with other values of these, and of all below them. They say where and how long it
# runs, not what it computes; `accumulate` makes up for another number of processes.
MAY_CHANGE = (
    "accumulate",
    "channels_last",
    "compile",
    "data.num_workers",
    "epochs",
    "fabric.accelerator",
    "fabric.devices",
    "fabric.num_nodes",
    "fabric.strategy",
    "output",
    "save_minutes",
    "skip_nonfinite",
)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Makes `folder` and keeps other processes out of it for as long as this one lives; a folder
    that is still empty goes again.

    Raises:
        ValueError: another process is at work in it.
    """
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
        # nobody waits for it: to find it locked is an error
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        for each in made:
            if not any(each.iterdir()):
                each.rmdir()


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """What makes a run another one, in words: `name: old -> new`.

    Args:
        before: The settings that the run was begun with, nested.
        now: Those of today.
        defaults: Values of settings that were not there then.
    """
    old, new, standard = (
        {name: value for name, value in flat(settings).items() if value != {}}
        for settings in (before, now, defaults)
    )
    changed = [
        name
        for name in dict.fromkeys((*old, *new))
        if not _is_in(name, MAY_CHANGE) and old.get(name, standard.get(name)) != new.get(name)
    ]
    # another class has other settings
    kinds = [f"{n.removesuffix('class_path')}init_args" for n in changed if "class_path" in n]
    return [
        f"{name}: {_word(old, name, standard)} -> {_word(new, name, {})}"
        for name in changed
        if not _is_in(name, kinds)
    ]


def require_same_run(config: Path, now: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """ValueError where a run's config.yaml has other settings than `now`; names them."""
    changed = changed_settings(current_settings(read_yaml(config)), now, defaults)
    if changed:
        raise ValueError(
            f"{config.parent} holds another run: {'; '.join(changed)} (--allow_changes goes on "
            "all the same)"
        )


def _is_in(name: str, groups: Iterable[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _word(settings: Mapping[str, Any], name: str, otherwise: Mapping[str, Any]) -> str:
    if name in settings or name in otherwise:
        return str(settings.get(name, otherwise.get(name)))
    return "not set"
