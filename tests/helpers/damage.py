"""Hypothesis strategies that change a valid file, harmlessly or by damage."""

import re

from hypothesis import strategies as st

ODD_NUMBERS = (b"1e999", b"9" * 30, b"-1", b"nan", b"0", b"1e18", b"0.5", b"1_0", b"9" * 5000)
BOM = b"\xef\xbb\xbf"


@st.composite
def harmless(draw, content: bytes) -> bytes:
    """Save the text as an editor on another system would have saved it."""
    change = draw(st.sampled_from(("crlf", "bom", "blanks", "blank lines", "all")))
    if change in ("blanks", "all"):
        content = re.sub(rb"(?m)$", b"  ", content)
    if change in ("blank lines", "all"):
        content = content.replace(b"\n", b"\n\n") + b"\n\n"
    if change in ("crlf", "all"):
        content = content.replace(b"\n", b"\r\n")
    return BOM + content if change in ("bom", "all") else content


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Damage a text or binary file in one to three ways."""
    for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=3)):
        content = change(draw, content)
    return content


def _place(draw, content: bytes) -> int:
    return draw(st.integers(0, max(0, len(content) - 1)))


def _truncate(draw, content):
    return content[: _place(draw, content)]


def _insert(draw, content):
    place = _place(draw, content)
    what = draw(
        st.sampled_from((b"\xff\xfe", b"\x00", b"\x0c", b"\xe2\x80\xa8", b"\n", b",", b"["))
    )
    return content[:place] + what + content[place:]


def _flip(draw, content):
    place = _place(draw, content)
    return content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]


def _lines(draw, content):
    lines = content.split(b"\n")
    row = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from(("reverse", "twice", "without")))
    if change == "reverse":
        lines = lines[::-1]
    elif change == "twice":
        lines.insert(row, lines[row])
    else:
        del lines[row]
    return b"\n".join(lines)


def _number(draw, content):
    found = list(re.finditer(rb"\d+(\.\d+)?", content))
    if not found:
        return content
    start, end = draw(st.sampled_from(found)).span()
    return content[:start] + draw(st.sampled_from(ODD_NUMBERS)) + content[end:]


def _word(draw, content):
    """A JSON or YAML value of another type."""
    found = list(re.finditer(rb'"[^"]*"|\b\w+\b|\[[^][]*\]|\{[^{}]*\}', content))
    if not found:
        return content
    start, end = draw(st.sampled_from(found)).span()
    words = (b"null", b"[]", b"{}", b'"x"', b"true", b"NaN", b"-Infinity", b'"\\ud800"', b"[[1]]")
    return content[:start] + draw(st.sampled_from(words)) + content[end:]


_CHANGES = (_truncate, _insert, _flip, _lines, _number, _word, lambda draw, content: b"")
