"""Maps, boxes and predictions under attack: `wsol evaluate RUN ... --robustness true`."""

from wsol.cli.commands.evaluate import runs_command


def main(arguments: list[str]) -> None:
    runs_command(["--robustness", "true", *arguments])
