"""The tiny project with its data, queries, checkpoints and lake in a store."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.stored_files import StoredFiles
from tests.conftest import TinyProject, private_copy


def upload(folder: Path, address: str) -> None:
    """Copy a folder's files below an address of a store, whose credentials are in the environment."""
    files = StoredFiles(address)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        files.write(file.relative_to(folder).as_posix(), file.read_bytes())


@contextmanager
def moved_to_store(tiny_project: TinyProject, address: str, tmp_path: Path) -> Iterator[TinyProject]:
    """Open a project that has nothing but its settings on this machine, and whose lake, `out`, is empty."""
    for name in ("data", "queries", "checkpoints"):
        upload(tiny_project.root / name, f"{address}/in/{name}")
    with private_copy(tiny_project, tmp_path) as copied:
        for name in ("data", "queries", "checkpoints", "lake"):
            shutil.rmtree(copied.root / name)
        text = (copied.root / "lorif.toml").read_text().replace('path = "data"', f'path = "{address}/in/data"')
        text = text.replace("[queries]", f'[queries]\npath = "{address}/in/queries"')
        text += f'\n[checkpoints]\npath = "{address}/in/checkpoints"\n[lake]\nroot = "{address}/out"\n'
        (copied.root / "lorif.toml").write_text(text)
        project = TinyProject.open(copied.root, copied.instance)
        project.register_partitions()
        yield project


def assert_same_scores(there: TinyProject, here: TinyProject) -> None:
    """Both list the same examples for each query."""
    columns = ["checkpoint", "query_id", "side", "rank"]
    found, wanted = (one.table(QUERY_SCORES).sort(columns) for one in (there, here))
    assert found.select(*columns, "example_id").equals(wanted.select(*columns, "example_id"))
