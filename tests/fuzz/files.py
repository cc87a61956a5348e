"""Small valid files of every kind that strangers give: the files of a folder by name, and which of them is damaged."""

import bz2
import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import tiny_tokenizer, write_checkpoint
from tests.token_stores import array, datatrove_files, indexed_files, mds_shard


class Use(StrEnum):
    """What is done with a folder."""

    SOURCE = "source"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Valid:
    """A folder that is read as one source or one checkpoint; `damaged` is the name of the file that mutations are made of."""

    use: Use
    damaged: str
    files: Mapping[str, bytes]

    @property
    def content(self) -> bytes:
        return self.files[self.damaged]


_ROWS = [
    {"id": f"r{k}", "text": f"the with statement opens file {k}", "tags": [{"n": k, "name": "é"}]} for k in range(6)
]


def valid_files(scratch: Path) -> dict[str, Valid]:
    """Return one folder for each kind of file, by the kind's name; `scratch` is an empty folder to make them in."""
    lines = "\n".join(map(json.dumps, _ROWS)).encode()
    plain = {
        "rows.jsonl": lines,
        "rows.jsonl.gz": gzip.compress(lines, mtime=0),
        "rows.jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
        "rows.json": json.dumps(_ROWS, indent=1).encode(),
        "rows.csv": b'id,text,note\n1,"a, ""b""\nc",x\n2,d,\n3,e,z\n',
        "rows.txt": b"a b c\n\nd e f\n\ng h\n",
    }
    found = {name: Valid(Use.SOURCE, f"rows/{name}", {f"rows/{name}": content}) for name, content in plain.items()}
    for name, options in (
        ("plain.parquet", {"compression": "none", "use_dictionary": False}),
        ("dictionary.parquet", {"compression": "zstd", "row_group_size": 3}),
        ("pages.parquet", {"compression": "snappy", "data_page_version": "2.0", "data_page_size": 16}),
    ):
        pq.write_table(pa.Table.from_pylist(_ROWS), file := scratch / name, **options)
        found[name] = Valid(Use.SOURCE, f"rows/{name}", {f"rows/{name}": file.read_bytes()})
    found |= _token_stores()
    found |= _saved_dataset(scratch / "saved")
    found |= _delta_table(scratch / "delta")
    found |= _checkpoint(scratch / "checkpoint")
    return found


def _token_stores() -> dict[str, Valid]:
    indexed = indexed_files("rows/corpus", [[[5, 6, 7], [8]], [[9, 1]], [[2, 3, 4, 5]]])
    marked = datatrove_files("rows/a.ds", [[5, 6, 7], [8], [9, 1]], marks=[[0, 1, 1], [1], [1, 1]])
    ids = np.array([5, 6, 7], np.uint16)
    row = [array(ids, "uint16"), array(ids), b"the with statement", b"{}", b"\3\0\0\0\0\0\0\0"]
    encodings = {"input_ids": "ndarray:uint16", "other": "ndarray", "note": "str", "tags": "json", "n": "int"}
    shard = mds_shard(encodings, [row] * 3, {"n": 8})
    return {
        **{f"megatron: {name}": Valid(Use.SOURCE, name, indexed) for name in indexed},
        **{f"datatrove: {name}": Valid(Use.SOURCE, name, marked) for name in marked},
        "rows.mds": Valid(Use.SOURCE, "rows/rows.mds", {"rows/rows.mds": shard}),
        **{
            name: Valid(Use.SOURCE, f"rows/{name}", {f"rows/{name}": content})
            for name, content in {
                "rows.mds.gz": gzip.compress(shard, mtime=0),
                "rows.mds.bz2": bz2.compress(shard),
                "rows.mds.br": pa.compress(shard, codec="brotli", asbytes=True),
                "rows.mds.snappy": pa.compress(shard, codec="snappy", asbytes=True),
            }.items()
        },
    }


def _saved_dataset(folder: Path) -> dict[str, Valid]:
    from datasets import Dataset

    Dataset.from_list(_ROWS).save_to_disk(str(folder))
    state = json.loads((folder / "state.json").read_text())
    # It is drawn at random, and mutations are to be the same in every run.
    (folder / "state.json").write_text(json.dumps({**state, "_fingerprint": "0" * 16}))
    files = {f"rows/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}
    return {f"datasets: {name}": Valid(Use.SOURCE, name, files) for name in files}


def _delta_table(folder: Path) -> dict[str, Valid]:
    """A table of one commit with names and times that are the same in every run."""
    log, data = "rows/_delta_log/00000000000000000000.json", "rows/part-0.parquet"
    table = pa.table({name: [row[name] for row in _ROWS] for name in ("id", "text")})
    folder.mkdir()
    pq.write_table(table, file := folder / "part-0.parquet")
    fields = [{"name": name, "type": "string", "nullable": True, "metadata": {}} for name in table.column_names]
    about = {
        "id": "0" * 32,
        "format": {"provider": "parquet", "options": {}},
        "partitionColumns": [],
        "configuration": {},
    }
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {**about, "schemaString": json.dumps({"type": "struct", "fields": fields})}},
        {
            "add": {
                "path": file.name,
                "partitionValues": {},
                "size": file.stat().st_size,
                "modificationTime": 0,
                "dataChange": True,
            }
        },
    ]
    files = {data: file.read_bytes(), log: "\n".join(map(json.dumps, actions)).encode()}
    return {"delta: data": Valid(Use.SOURCE, data, files), "delta: log": Valid(Use.SOURCE, log, files)}


def _checkpoint(folder: Path) -> dict[str, Valid]:
    write_checkpoint(folder, tiny_tokenizer(), seed=0)
    files = {f"model/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    names = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    return {f"checkpoint: {name}": Valid(Use.CHECKPOINT, f"model/{name}", files) for name in names}
