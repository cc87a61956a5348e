"""Damage to files of a lake for tests: flipped bits, chosen by a seed, in every kind of file."""

import random
from collections.abc import Iterable
from pathlib import Path

from lorif_assets.lake.lake import Lake
from lorif_assets.lake.seals import seal_path, sealed_path
from lorif_assets.lake.verification import files_to_verify


def kind(path: str) -> str:
    """What sort of file it is: the table, log, checksums or folder that it belongs to."""
    folder, _, rest = path.partition("/")
    if folder == "checksums":
        return f"{folder} of {'log' if '_delta_log' in rest else 'data'}"
    if "_delta_log" in rest:
        return "log"
    return folder if rest else path


def chosen_files(lake: Lake, n: int, seed: int) -> list[str]:
    """`n` files of the lake: one of each kind, and others at random, but no log file together with its copy."""
    draw = random.Random(seed)
    paths = [path for path, size in files_to_verify(lake).items() if size]
    draw.shuffle(paths)
    one_each = {kind(path): path for path in paths}
    chosen: list[str] = []
    for path in [*one_each.values(), *(path for path in paths if path not in one_each.values())]:
        if "_delta_log" not in path or not {seal_path(path), sealed_path(path)} & {*chosen}:
            chosen.append(path)
    return chosen[:n]


def flip_bit(lake: Lake, path: str, at: int) -> None:
    """Flip one bit of a file, counted from its first; from its last where `at` is negative."""
    file = Path(lake.root, path)
    content = bytearray(file.read_bytes())
    content[at // 8 if at >= 0 else len(content) + at // 8] ^= 1 << (at % 8)
    file.write_bytes(content)


def flip_bits(lake: Lake, paths: Iterable[str], seed: int) -> None:
    """Flip a random bit of each file."""
    draw = random.Random(seed)
    for path in paths:
        flip_bit(lake, path, draw.randrange(8 * Path(lake.root, path).stat().st_size))
