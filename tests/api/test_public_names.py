"""What `import lorif_assets` promises: a few names, loaded when they are used, without Dagster."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import lorif_assets

NO_DAGSTER = """
import sys
import lorif_assets
assert not {"dagster", "torch", "transformers", "polars"} & set(sys.modules), "importing the package loads nothing"
with lorif_assets.open(sys.argv[1]) as project:
    answer = project.attribute("the with statement", " opens a file", top_k=2)
    assert answer.table.height == 4
    assert project.checkpoints and project.queries.height
assert lorif_assets.attribute
assert "dagster" not in sys.modules
"""


def test_dagster_is_not_imported_by_opening_and_asking_a_project(tiny_project):
    command = [sys.executable, "-c", NO_DAGSTER, str(tiny_project.root / "lorif.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", lorif_assets.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert name in dir(lorif_assets)
    assert getattr(lorif_assets, name).__doc__


def test_the_version_is_that_of_the_installed_package():
    assert lorif_assets.__version__ == version("lorif-assets")
    assert "__version__" in dir(lorif_assets)


def test_any_other_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'attribut'"):
        lorif_assets.attribut  # noqa: B018


def test_importing_the_package_sets_nothing_in_the_environment():
    script = (
        "import os; before = dict(os.environ); import lorif_assets; lorif_assets.Recipe; assert os.environ == before"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
