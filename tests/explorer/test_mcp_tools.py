"""The explorer as an assistant's tools."""

import json
import subprocess
import sys

import pytest

from lorif_assets.errors import LorifError, NotStoredError
from lorif_assets.explorer.mcp_tools import TOOLS, called, require_mcp
from tests.stored_influences import LATE


def test_a_stored_query_is_answered_as_by_the_api(explorer, client):
    assert called(explorer, TOOLS["influences"], {"limit": 1}) == client.get("/api/influences?limit=1").json()


def test_a_completion_is_asked_about_and_waited_for(explorer, project):
    found = called(explorer, TOOLS["influences"], {"completion": " c", "limit": 1})
    assert found["listed"]["rows"][0]["example_id"] == "asked"
    assert called(explorer, TOOLS["groups"], {"completion": " c", "column": "topic"})["grouping"]["is_complete"]
    assert project.asked == [("", " c", LATE, "all")]


def test_what_went_wrong_is_an_error_that_says_so(explorer, project):
    project.fails = True
    with pytest.raises(LorifError, match="the checkpoint's files are gone"):
        called(explorer, TOOLS["influences"], {"completion": "x"})
    with pytest.raises(NotStoredError, match="no scores are stored of a checkpoint 'x'"):
        called(explorer, TOOLS["trust"], {"checkpoint": "x"})


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    with pytest.raises(LorifError, match=r"pip install 'lorif-assets\[mcp\]'"):
        require_mcp()


@pytest.mark.slow
def test_an_assistant_lists_and_calls_the_tools_over_standard_input_and_output(tiny_project):
    pytest.importorskip("mcp")
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    calls = {"influences": {"completion": " opens a file"}, "groups": {"column": "no such"}}
    asked = [
        {"id": 1, "method": "initialize", "params": client},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        # Half of a surrogate pair, as json.dumps writes it.
        {"id": "half", "method": "tools/call", "params": {"name": "influences", "arguments": {"completion": "\ud83d"}}},
        *(
            {"id": number, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls.items(), 3)
        ),
    ]
    command = [
        sys.executable,
        "-m",
        "lorif_assets",
        "explore",
        "--mcp",
        "--config",
        str(tiny_project.root / "lorif.toml"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tiny_project.root)
    answers = {}
    for one in asked:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **one}) + "\n")
        process.stdin.flush()
        while one.get("id") and one["id"] not in answers:
            answer = json.loads(process.stdout.readline())
            answers[answer.get("id")] = answer
    process.stdin.close()
    assert process.wait(60) == 0
    assert answers["half"]["error"]["message"] == "the parameters have half of a surrogate pair, which no text has"
    assert [tool["name"] for tool in answers[2]["result"]["tools"]] == list(TOOLS)
    assert answers[3]["result"]["structuredContent"]["listed"]["n_examples"] == 36
    assert answers[4]["result"]["isError"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{"jsonrpc": "2.0", "id": 3, "method": "a", "params": {"b": "\\ud83d"}}',
            (3, -32602, "half of a surrogate pair"),
        ),
        ('{"jsonrpc": "2.0", "id": "x", "way": "a"}', ("x", -32600, "cannot be read: Field required")),
        ("[]", (None, -32600, "cannot be read")),
        ("no request", (None, -32700, "cannot be read: Invalid JSON")),
        ('{"jsonrpc": "2.0", "id": 3, "method": "a", "params": {"b": "\\ud83d\\ude00"}}', None),
        # Nobody waits for an answer.
        ('{"jsonrpc": "2.0", "method": "a", "params": {"b": "\\ud83d"}}', None),
        ("\n", None),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_where_an_answer_is_waited_for(line, expected):
    pytest.importorskip("mcp")
    from lorif_assets.explorer.mcp_requests import refusal_of

    refusal = refusal_of(line)
    if expected is None:
        assert refusal is None
        return
    asked, code, words = expected
    assert (refusal.id, refusal.error.code) == (asked, code)
    assert words in refusal.error.message
