"""The demo's checks."""

from io import StringIO

from rich.console import Console

from lorif_assets.checks.latest_results import outcomes
from lorif_assets.demo.run import materialize
from tests.conftest import TinyProject


def test_what_the_demo_brings_up_to_date_is_checked_too(private_project: TinyProject) -> None:
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    assert not list(outcomes(private_project.instance))
    materialize(private_project.instance, private_project.opened, Console(file=StringIO()))
    assert list(outcomes(private_project.instance))
