"""The configurations that come with this package, found by name."""

from pathlib import Path

from wsol.data.names import suggestion

# a link to the repository's configs/; in an installed package a folder
CONFIGS = Path(__file__).with_name("configs").resolve()
BASE = CONFIGS / "base.yaml"


def find_config(name: str) -> Path:
    """The YAML file at the path `name`, or else the configuration called so: `toy_art`,
    `methods/art`. Raises ValueError if there is none; the message has the nearest names."""
    if Path(name).is_file():
        return Path(name)
    names = config_names()
    if name in names:
        return CONFIGS / f"{name}.yaml"
    raise ValueError(f"there is no configuration {name}{suggestion(Path(name).stem, names)}")


def config_names() -> list[str]:
    """Names of the configurations, those of complete trainings first."""
    files = sorted(CONFIGS.rglob("*.yaml"), key=lambda file: (file.parent != CONFIGS, file))
    return [file.relative_to(CONFIGS).with_suffix("").as_posix() for file in files]
