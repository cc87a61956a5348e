"""`lorif verify`: what a person and a program are told."""

import json
from pathlib import Path

from lorif_assets.lake.verification import files_to_verify
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, TinyProject
from tests.damaged_files import flip_bit


def one_file(project: TinyProject, start: str) -> str:
    return next(path for path in files_to_verify(project.lake) if path.startswith(start))


def test_a_sound_lake_ends_with_0(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    result = lorif("verify", *config)
    assert result.exit_code == 0
    n = len(files_to_verify(private_project.lake))
    assert result.stdout.startswith(f"{n:,} files, ")
    assert result.stdout.endswith("MB read: all as they were written\n")


def test_what_is_damaged_is_named_with_what_makes_it_again_and_ends_with_1_until_that_was_done(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    path = one_file(private_project, f"gradient_factors/checkpoint={CHECKPOINTS[0]}")
    flip_bit(private_project.lake, path, 8 * 3_000)
    for _ in range(2):
        result = lorif("verify", *config)
        assert result.exit_code == 1
        assert (
            f"damaged: the file {path} of the table gradient_factors, checkpoint = '{CHECKPOINTS[0]}'" in result.stdout
        )
        assert "run `lorif materialize`, which makes `gradient_factors`, partition step-000100|docs-" in result.stdout
    status = " ".join(lorif("status", *config).stdout.split())
    assert "damaged: the file" in status
    private_project.update()
    assert lorif("verify", *config).exit_code == 0


def test_as_json_it_is_read_by_programs(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    path = one_file(private_project, "curvature_states")
    flip_bit(private_project.lake, path, -50)
    result = lorif("verify", "--json", *config)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    (damage,) = found["damage"]
    assert (damage["file"], damage["table"], damage["asset"]) == (path, "svd_preconditioners", "svd_preconditioners")
    assert damage["partition"]["checkpoint"] == path.split("/")[1]
    assert found["files"] == len(files_to_verify(private_project.lake))
    assert found["unchecked"] == 0


def test_a_lake_of_an_earlier_version_is_said_to_be_unchecked(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    for path in files_to_verify(private_project.lake):
        if path.startswith("checksums/"):
            Path(private_project.lake.root, path).unlink()
    result = lorif("verify", *config)
    assert result.exit_code == 0
    assert "of them can be read, and are unchecked: they were written without a checksum" in result.stdout
