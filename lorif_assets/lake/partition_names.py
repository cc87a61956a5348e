"""Names of partitions made from names of files: what a file is called, as far as tables, Dagster and pages can take it."""

import re
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

_PUNCTUATION = "._-"
# A table's folder for a partition is percent-encoded, with other text around the name, and has 255 bytes at most.
_LONGEST_ENCODED = 200
_HASH_BYTES = 4


def partition_name(text: str, punctuation: str = _PUNCTUATION) -> str:
    """Return a text with letters and digits of every script and, behind the first, some punctuation kept; `_` for all else.

    Letters with accents are composed (NFC), so that a file keeps its name when another system decomposes it.
    """
    composed = unicodedata.normalize("NFC", text)
    name = "".join(character if _is_kept(character, punctuation) else "_" for character in composed)
    name = re.sub(r"^[^\w]", "_", name)
    name = re.sub(r"\.{3,}", lambda dots: "_" * len(dots[0]), name)  # Dagster has no partition with three in a row
    if len(quote(name)) <= _LONGEST_ENCODED:
        return name
    while len(quote(name)) > _LONGEST_ENCODED:
        name = name[:-1]
    return f"{name}~{_hash(text)}"


def partition_names(files: Mapping[Path, tuple[str, str]], punctuation: str = _PUNCTUATION) -> dict[Path, str]:
    """Return by file the name that what it is called gives, each another one.

    Of several files for which that is one name, the file that is called by it, with a suffix in small letters, has it;
    each other one adds `~` and a hash of what it is called. Files that differ in nothing but their suffix, as a file and
    its compressed copy do, are left with one name: which of them is meant, the caller has to ask.

    Args:
        files: what each is called, as text and suffix.
        punctuation: what a name holds beside letters and digits.
    """
    by_name: dict[str, list[Path]] = {}
    for file, (text, _) in files.items():
        by_name.setdefault(partition_name(text, punctuation), []).append(file)
    return {
        file: name
        if len(group) == 1 or files[file] == (name, files[file][1].lower())
        else f"{name}~{_hash(''.join(files[file]))}"
        for name, group in by_name.items()
        for file in group
    }


def _is_kept(character: str, punctuation: str) -> bool:
    # Marks make letters of several scripts: a Devanagari vowel is one.
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Nd" or character in punctuation


def _hash(called: str) -> str:
    # Names of files may hold any surrogate: bytes that are no UTF-8 on Linux, half a pair on Windows.
    return blake2b(called.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
