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
    each other one adds `~` and a hash of what it is called. Files that differ in nothing but their suffix, and not in its
    letters' size alone, as a file and its compressed copy do, are left with one name: which of them is meant, the caller has to
    ask.

    Args:
        files: what each is called, as text and suffix.
        punctuation: what a name holds beside letters and digits.
    """
    # By name, by text and by suffix in small letters.
    groups: dict[str, dict[str, dict[str, list[Path]]]] = {}
    for file, (text, suffix) in files.items():
        texts = groups.setdefault(partition_name(text, punctuation), {})
        texts.setdefault(text, {}).setdefault(suffix.lower(), []).append(file)
    names: dict[Path, str] = {}
    for name, texts in groups.items():
        for text, suffixes in texts.items():
            has_name = len(texts) == 1 or text == name
            shared = name if has_name else f"{name}~{_hash(text + min(suffixes))}"
            for suffix, alike in suffixes.items():
                first, *others = sorted(alike, key=lambda file: (files[file][1] != suffix, file))
                names[first] = shared
                names |= {file: f"{name}~{_hash(''.join(files[file]))}" for file in others}
    return {file: names[file] for file in files}


def _is_kept(character: str, punctuation: str) -> bool:
    # Marks make letters of several scripts: a Devanagari vowel is one.
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Nd" or character in punctuation


def _hash(called: str) -> str:
    # Names of files may hold any surrogate: bytes that are no UTF-8 on Linux, half a pair on Windows.
    return blake2b(called.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
