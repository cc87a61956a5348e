"""Stores of token ids as the trainers' own programs write them, byte by byte."""

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np

CODES = {"u1": 1, "i2": 3, "i4": 4, "i8": 5, "u2": 8}
"""Of Megatron, by the type of the numbers."""


def indexed_files(name: str, documents: Sequence[Sequence[Sequence[int]]], kind: str = "u2") -> dict[str, bytes]:
    """Return documents, each of sequences, as files that Megatron's `IndexedDatasetBuilder` writes."""
    sequences = [sequence for document in documents for sequence in document]
    tokens = [np.array(sequence, f"<{kind}") for sequence in sequences]
    lengths = np.array([len(sequence) for sequence in sequences], "<i4")
    starts = np.cumsum([0, *(part.nbytes for part in tokens)])[: len(tokens)].astype("<i8")
    ends = np.cumsum([0, *map(len, documents)]).astype("<i8")
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, CODES[kind], len(sequences), len(ends))
    index = header + lengths.tobytes() + starts.tobytes() + ends.tobytes()
    return {f"{name}.idx": index, f"{name}.bin": b"".join(part.tobytes() for part in tokens)}


def datatrove_files(
    name: str, documents: Sequence[Sequence[int]], kind: str = "u2", marks: Sequence[Sequence[int]] | None = None
) -> dict[str, bytes]:
    """Return documents, and which of their tokens carry loss, as files that datatrove's `TokenizedFile` writes."""
    ends = np.cumsum([len(document) for document in documents]).astype("<u8")
    tokens = b"".join(np.array(document, f"<{kind}").tobytes() for document in documents)
    loss = {} if marks is None else {f"{name}.loss": b"".join(bytes(part) for part in marks)}
    about = f"<tokenizer>|{kind[1]}\n{int(ends[-1]) if len(ends) else 0}\n".encode()
    return {name: tokens, f"{name}.index": ends.tobytes(), f"{name}.metadata": about, **loss}


def array(values: np.ndarray, kind: str | None = None, *, shape: bool = False) -> bytes:
    """Return an array as the encoding `ndarray` does, with type and shape in front where the encoding does not say them."""
    codes = {"uint16": 16, "int32": 33, "int64": 65, "float32": 34}
    front = b"" if kind else bytes([codes[values.dtype.name]])
    form = b"" if shape else bytes([values.ndim << 2 | 1]) + np.array(values.shape, "<u2").tobytes()
    return front + form + values.tobytes()


def mds_shard(
    encodings: Mapping[str, str], rows: Sequence[Sequence[bytes]], sizes: Mapping[str, int] | None = None
) -> bytes:
    """Return rows of encoded values as a file that `MDSWriter` writes."""
    fixed = [(sizes or {}).get(name) for name in encodings]
    described = {
        **{"version": 2, "format": "mds", "compression": None, "hashes": [], "size_limit": 1 << 26},
        **{"column_names": [*encodings], "column_encodings": [*encodings.values()], "column_sizes": fixed},
    }
    config = json.dumps(described, sort_keys=True).encode()
    samples = [
        b"".join(struct.pack("<I", len(value)) for value, size in zip(row, fixed, strict=True) if size is None)
        + b"".join(row)
        for row in rows
    ]
    begin = 4 + 4 * (len(rows) + 1) + len(config)
    offsets = np.cumsum([begin, *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(rows)) + offsets.tobytes() + config + b"".join(samples)
