"""What lies at a source's path and is not read is listed, never passed over in silence."""

from pathlib import Path
from typing import Any

import pytest

from lorif_assets.config.sources import Source
from lorif_assets.data.formats.paths import passed_over
from lorif_assets.data.shards import list_shards, passed_over_notice

ROW = '{"text": "a"}\n'


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in (
        "data/a.jsonl",
        "data/sub/b.jsonl",
        "data/sub/c.csv",
        "data/README.md",
        "data/.cache/d.csv",
        "elsewhere/e.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROW)
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/f.jsonl").symlink_to(tmp_path / "elsewhere/e.jsonl")
    (tmp_path / "data/gone.jsonl").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "settings", "names"),
    [
        ("data", {}, ["README.md", "gone.jsonl (a broken link)", "linked (a linked folder)", "sub/c.csv"]),
        (
            "data",
            {"format": "csv"},
            [
                "README.md",
                "a.jsonl",
                "f.jsonl",
                "gone.jsonl (a broken link)",
                "linked (a linked folder)",
                "sub/b.jsonl",
            ],
        ),
        ("data/*.jsonl", {}, ["gone.jsonl (a broken link)"]),
        ("data/**/*.jsonl", {}, ["gone.jsonl (a broken link)", "linked (a linked folder)"]),
        ("data/*/*", {}, ["sub/c.csv"]),
        ("data/a.jsonl", {}, []),
        ("elsewhere", {}, []),
        ("data/linked", {}, []),
    ],
)
def test_what_is_covered_and_not_read_is_listed(
    base: Path, path: str, settings: dict[str, Any], names: list[str]
) -> None:
    assert passed_over(Source(name="s", path=path, **settings), base) == tuple(names)


def test_files_that_are_links_are_read_and_linked_folders_are_not(base: Path) -> None:
    shards = [piece.shard for piece in list_shards(Source(name="s", path="data"), base)]
    assert shards == ["s-a-00000", "s-f-00000", "s-sub_b-00000"]


def test_the_notice_names_some_and_counts_the_others(base: Path) -> None:
    for k in range(4):
        (base / f"data/{k}.log").write_text("")
    notice = passed_over_notice(Source(name="s", path="data"), base)
    assert notice is not None
    assert notice.startswith(
        "passed over in data: 0.log, 1.log, 2.log, 3.log, README.md and 3 more. Where that is data"
    )
    assert passed_over_notice(Source(name="s", path="elsewhere"), base) is None
