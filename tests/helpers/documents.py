"""Commands, files and links in README.md and docs/."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.commands import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
EXPERIMENTS = sorted((ROOT / "docs" / "experiments").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *PAGES, *EXPERIMENTS]
SHELL, PYTHON = "shell", "python"
_FENCE = re.compile(r"^ *```(\w*)$")
_FILE = re.compile(r"# ([\w.]+\.(?:py|yaml))\n")
_NO_CODE = {"math", "json", "text"}


@dataclass(frozen=True)
class Block:
    """A block of commands to type, or of a file to write.

    Attributes:
        language: SHELL for an indented block, otherwise the word after the fence.
        line: Number of its first line in the document, from 1.
    """

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}, line {self.line}"

    @property
    def file(self) -> str | None:
        """Name of the file, if the block is a whole file: its first line is a comment with it."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    def commands(self) -> list[str]:
        """Lines to type, without comments; lines that end with a backslash are joined."""
        joined = re.sub(r"\\\n *", "", self.text).splitlines()
        return [line.strip() for line in joined if line.strip() and line.strip()[0] != "#"]


def blocks(document: Path) -> list[Block]:
    """All blocks in order; lines indented by four after an empty line are shell commands."""
    return [block for block in _blocks(document) if block.language not in _NO_CODE]


def _blocks(document: Path) -> Iterator[Block]:
    lines = [*document.read_text().splitlines(), ""]
    position = 0
    while position < len(lines):
        fence, start = _FENCE.match(lines[position]), position
        if fence:
            position += 1
            while not _FENCE.match(lines[position]):
                position += 1
            text = "\n".join(lines[start + 1 : position])
            language = {"": SHELL, "sh": SHELL, "bash": SHELL}.get(fence[1], fence[1])
            yield Block(document, start + 1, language, text)
        elif lines[position].startswith("    ") and not lines[max(position - 1, 0)].strip():
            while lines[position].startswith("    "):
                position += 1
            yield Block(document, start + 1, SHELL, "\n".join(lines[start:position]))
            continue
        position += 1


def name_of(document: Path) -> str:
    """The document's path below the repository, for example docs/guide.md."""
    return document.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", document.read_text())


def words(command: str, cwd: Path) -> list[str]:
    """The words of a command after a shell in `cwd` has expanded quotes, braces and stars."""
    script = f"printf '%s\\0' {command}"
    found = subprocess.run(["bash", "-c", script], cwd=cwd, capture_output=True, check=True)
    return found.stdout.decode().split("\0")[:-1]


def links(document: Path) -> list[str]:
    """Relative links and pictures, with their anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    return [link for link in found if "://" not in link]


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.*)$", prose(document))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}
