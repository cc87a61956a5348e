"""`lorif explore` as a program."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from lorif_assets.cli.main import main


@pytest.mark.slow
def test_the_explorer_is_served_on_this_machine_alone_and_ctrl_c_ends_it(tiny_project):
    command = [sys.executable, "-m", "lorif_assets", "explore", "--no-open", "--port", "0", "--config"]
    process = subprocess.Popen(
        [*command, str(tiny_project.root / "lorif.toml")], stdout=subprocess.PIPE, text=True, cwd=tiny_project.root
    )
    try:
        said = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)[0]
        with urllib.request.urlopen(f"{address}query") as response:
            assert "Proponents" in response.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_a_port_that_is_taken_is_named_with_what_to_do(tiny_project, monkeypatch):
    monkeypatch.chdir(tiny_project.root)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = str(tiny_project.root / "lorif.toml")
        result = CliRunner().invoke(main, ["explore", "--no-open", "--port", str(port), "--config", config])
    assert result.exit_code == 1
    assert f"port {port} of 127.0.0.1 is taken" in " ".join(result.output.split())


def test_without_a_settings_file_there_is_nothing_to_explore(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORIF_CONFIG", raising=False)
    result = CliRunner().invoke(main, ["explore", "--no-open"])
    assert result.exit_code == 1
    assert "there is no settings file" in " ".join(result.output.split())
