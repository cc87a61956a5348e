"""The notebooks run from top to bottom, and what is stored of them is what they show.

`jupyter execute --inplace docs/notebooks/NAME.ipynb` stores it anew.
"""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
_MACHINE = re.compile(r"/(tmp|root|home|work|Users|var)/")


def printed(notebook):
    """What the code cells print and show as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]


def words(text):
    """The text without its numbers: other machines round otherwise."""
    return re.sub(r"[-−+]?\d[\d.,]*(e[-+]?\d+)?", "#", text)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_names_no_place_of_a_machine(path, monkeypatch, tmp_path):
    here = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    # Its folders, and the locks of devices, which hold for a machine.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stored = nbformat.read(path, as_version=4)
    ran = nbformat.read(path, as_version=4)
    NotebookClient(ran, timeout=300, kernel_name="python3").execute()
    for notebook in (stored, ran):
        assert not _MACHINE.search("".join(printed(notebook)))
        assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", []))
    assert [words(text)[:40] for text in printed(ran)] == [words(text)[:40] for text in printed(stored)]
