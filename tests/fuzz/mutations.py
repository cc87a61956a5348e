"""Mutations of a file's bytes: flips, truncations, splices, and numbers where lengths may stand, far larger than the file."""

import struct
from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

_LARGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_AS_TEXT = [str(number).encode() for number in (-1, 0, 10**4, 10**9, 10**15, 10**30, 10**400)]
_WORDS = [
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"NaN",
    b"1e999",
    b"[" * 2_000,
    b'{"a":' * 2_000,
    b"\xff\xfe",
    b"\0" * 64,
]
_MOST_REPEATED = 1 << 16


@st.composite
def mutated(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    """Draw a file that begins as a valid one, with one to four things done to it; `others` are spliced in."""
    for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=4)):
        content = change(draw, content, others)
    return content


def _place(draw: DrawFn, content: bytes) -> int:
    # What describes a file stands at its ends.
    ends = st.one_of(st.integers(0, 64), st.integers(max(len(content) - 400, 0), len(content)))
    return min(draw(st.one_of(ends, st.integers(0, len(content)))), len(content))


def _flip(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    if not content:
        return content
    at = min(_place(draw, content), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]


def _byte(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]


def _cut(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] if draw(st.booleans()) else content[at:]


def _leave_out(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] + content[at + draw(st.integers(1, 64)) :]


def _repeat(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    part = content[at : at + draw(st.integers(1, 64))]
    times = draw(st.sampled_from([2, 3, 50, 1_000]))
    return content[:at] + (part * times)[:_MOST_REPEATED] + content[at + len(part) :]


def _splice(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(others))
    at, start = _place(draw, content), _place(draw, other)
    length = draw(st.integers(1, 512))
    rest = at if draw(st.booleans()) else at + length
    return content[:at] + other[start : start + length] + content[rest:]


def _number(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at, number = _place(draw, content), draw(st.sampled_from(_LARGE))
    kind = draw(st.sampled_from(["<B", "<H", "<I", "<Q", ">I", "varint"]))
    part = _varint(number) if kind == "varint" else struct.pack(kind, number % 256 ** struct.calcsize(kind))
    return content[:at] + part + content[at + len(part) :]


def _digits(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    """Replace a number of a text by another one, or a value by something that is none."""
    places = [k for k, byte in enumerate(content) if chr(byte).isdigit() and not chr(content[k - 1]).isdigit()]
    if not places:
        return content
    at = end = draw(st.sampled_from(places))
    while end < len(content) and chr(content[end]).isdigit():
        end += 1
    return content[:at] + draw(st.sampled_from(_AS_TEXT)) + content[end:]


def _word(draw: DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] + draw(st.sampled_from(_WORDS)) + content[at + draw(st.integers(0, 16)) :]


def _varint(number: int) -> bytes:
    part = b""
    while number > 0x7F:
        part += bytes([number & 0x7F | 0x80])
        number >>= 7
    return part + bytes([number])


_CHANGES: Sequence[Callable[[DrawFn, bytes, Sequence[bytes]], bytes]] = (
    _flip,
    _flip,
    _byte,
    _cut,
    _leave_out,
    _repeat,
    _splice,
    _number,
    _number,
    _digits,
    _digits,
    _word,
)
