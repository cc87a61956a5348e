"""Starting a demo over: what it left is removed, but not Dagster's home, which a UI may be reading."""

from pathlib import Path

from lorif_assets.demo.run import clear


def test_everything_but_dagsters_home_is_removed(tmp_path: Path) -> None:
    for folder in ("lake/query_scores", "dagster_home/history"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lorif.toml").write_text("")
    (tmp_path / "linked").symlink_to(tmp_path / "dagster_home")
    clear(tmp_path, kept=tmp_path / "dagster_home")
    assert [child.name for child in tmp_path.iterdir()] == ["dagster_home"]
    assert (tmp_path / "dagster_home/history").is_dir()


def test_a_folder_that_is_not_there_is_clear(tmp_path: Path) -> None:
    clear(tmp_path / "gone", kept=tmp_path)
    assert not (tmp_path / "gone").exists()
