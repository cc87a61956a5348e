"""Repositories on the hub: which commit a name stands for, what is fetched of it, and what is said when it cannot be."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorif_assets.errors import HubError
from lorif_assets.hub import connection
from lorif_assets.hub.downloads import downloads_within
from lorif_assets.hub.names import HubName
from lorif_assets.hub.snapshots import snapshot_of
from tests.hub_stand_in import TOKEN, HubStandIn, bring_cache_without_lists, send

FILES = {"README.md": b"# A set", "data/train.jsonl": b'{"text": "one"}\n', "data/test.jsonl": b'{"text": "two"}\n'}
NAME = HubName.parse("hf://datasets/org/name")


def test_a_branch_stands_for_its_newest_commit_and_a_commit_for_itself(hub: HubStandIn) -> None:
    first = hub.dataset("org/name").commit(FILES)
    pinned = HubName.parse(f"hf://datasets/org/name@{first}")
    assert snapshot_of(NAME).commit == first
    second = hub.dataset("org/name").commit({**FILES, "data/train.jsonl": b'{"text": "other"}\n'})
    assert snapshot_of(NAME).commit == second
    hub.requests.clear()
    assert snapshot_of(pinned).commit == first
    assert not hub.requests, "a commit is never asked for"


def test_only_what_is_asked_for_is_downloaded_and_only_once(hub: HubStandIn) -> None:
    hub.dataset("org/name").commit(FILES)
    snapshot = snapshot_of(NAME)
    assert set(snapshot.files) == {".gitattributes", *FILES}
    folder = snapshot.fetch(["data/train.jsonl"])
    assert (folder / "data/train.jsonl").read_bytes() == FILES["data/train.jsonl"]
    assert not (folder / "data/test.jsonl").exists()
    hub.requests.clear()
    assert snapshot_of(NAME).fetch(["data/train.jsonl"]) == folder
    assert hub.downloads() == []


def test_a_file_whose_name_looks_like_a_pattern_is_fetched_alone(hub: HubStandIn) -> None:
    hub.dataset("org/name").commit({"a[1].jsonl": b"{}\n", "a1.jsonl": b"{}\n"})
    folder = snapshot_of(NAME).fetch(["a[1].jsonl"])
    assert sorted(path.name for path in folder.glob("*.jsonl")) == ["a[1].jsonl"]


def test_offline_the_snapshot_in_the_cache_is_used_and_what_it_lacks_is_named(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.dataset("org/name").commit(FILES)
    snapshot_of(NAME).fetch(["data/train.jsonl"])
    hub.dataset("org/name").commit({})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    snapshot = snapshot_of(NAME)
    assert snapshot.commit == commit
    assert snapshot.fetch(["data/train.jsonl"]).is_dir()
    with pytest.raises(
        HubError, match=r"data/test.jsonl of hf://datasets/org/name is not in the cache .*HF_HUB_OFFLINE"
    ):
        snapshot.fetch(["data/test.jsonl"])
    with pytest.raises(
        HubError, match=r"'v2', is not in the cache .*hf download org/name --repo-type dataset --revision v2"
    ):
        snapshot_of(HubName.parse("hf://datasets/org/name@v2"))
    assert not hub.requests


def test_a_closed_network_is_said_with_the_name_and_what_was_tried(hub: HubStandIn) -> None:
    hub.close()
    with pytest.raises(HubError, match=rf"hf://datasets/org/name, .*{hub.url} cannot be reached .*HF_ENDPOINT"):
        snapshot_of(NAME)


def test_without_the_hub_a_branch_stays_at_the_commit_that_was_seen_last(hub: HubStandIn) -> None:
    commit = hub.dataset("org/name").commit(FILES)
    assert snapshot_of(NAME).obstacle is None
    hub.close()
    snapshot = snapshot_of(NAME)
    assert snapshot.commit == commit
    assert hub.url in str(snapshot.obstacle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://datasets/org/other", r"has no data set 'org/other' that can be read without a token: .*HF_TOKEN"),
        ("hf://org/name", r"has no model 'org/name'"),
        ("hf://datasets/org/name@v9", r"'org/name' has no revision 'v9' at .*a branch, a tag or a whole commit"),
        ("hf://datasets/org/name@" + "0" * 40, r"'org/name' has no revision '0000"),
        (
            "hf://datasets/org/gated",
            r"hf://datasets/org/gated is gated, and cannot be read without a token: ask for access",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_message(hub: HubStandIn, text: str, message: str) -> None:
    hub.dataset("org/name").commit(FILES)
    hub.dataset("org/gated").commit(FILES)
    hub.dataset("org/gated").is_gated = True
    with pytest.raises(HubError, match=message):
        snapshot_of(HubName.parse(text)).fetch(["README.md"])


def test_a_token_of_the_environment_opens_a_gated_repository_and_is_in_no_message(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.dataset("org/gated").commit(FILES)
    hub.dataset("org/gated").is_gated = True
    name = HubName.parse("hf://datasets/org/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert snapshot_of(name).fetch(["data/train.jsonl"]).is_dir()
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}_of_another")
    with pytest.raises(HubError, match="with this machine's token") as refused:
        snapshot_of(name).fetch(["data/test.jsonl"])
    assert TOKEN not in str(refused.value) + caplog.text


def test_a_password_in_the_endpoint_is_not_shown(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//ada:secret@"))
    hub.close()
    with pytest.raises(HubError) as refused:
        snapshot_of(NAME)
    assert "secret" not in str(refused.value)


def test_a_cache_without_a_list_of_files_is_taken_as_it_is_where_the_hub_is_out_of_reach(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = HubName.parse(f"hf://datasets/org/name@{hub.dataset('org/name').commit(FILES)}")
    snapshot_of(pinned).fetch(["data/train.jsonl"])
    bring_cache_without_lists(tmp_path / "cache", monkeypatch)
    hub.close()
    snapshot = snapshot_of(pinned)
    assert snapshot.files == ("data/train.jsonl",)
    snapshot.fetch(snapshot.files)
    with pytest.raises(HubError, match=r"data/test.jsonl of \S+ is not in the cache"):
        snapshot.fetch(["data/test.jsonl"])


def test_a_page_that_is_no_answer_of_a_hub_is_said(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hub, "answer", lambda handler, has_body: send(handler, 200, b"<html>Log in to the network</html>")
    )
    with pytest.raises(HubError, match=r"hf://datasets/org/name, .* answers, but not as a hub does"):
        snapshot_of(NAME)


@pytest.mark.parametrize("address", ["localhost", "http://[", "http://127.0.0.1:port"])
def test_an_endpoint_that_is_no_address_is_said(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(HubError, match=r"hf://datasets/org/name, .*HF_ENDPOINT"):
        snapshot_of(NAME)


def test_a_cache_that_cannot_be_written_is_said(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.dataset("org/name").commit(FILES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(HubError, match=r"hf://datasets/org/name cannot be kept in the cache \S+/file"):
        snapshot_of(NAME).fetch(["data/train.jsonl"])


def test_a_look_that_must_not_wait_leaves_a_download_running_and_a_later_one_finds_it_done(hub: HubStandIn) -> None:
    hub.dataset("org/name").commit(FILES)
    hub.sends_files.clear()
    for _ in range(2):
        with (
            downloads_within(0.2),
            pytest.raises(HubError, match="1 files of hf://datasets/org/name are being downloaded"),
        ):
            snapshot_of(NAME).fetch(["data/train.jsonl"])
    hub.sends_files.set()
    with downloads_within(60):
        folder = snapshot_of(NAME).fetch(["data/train.jsonl"])
    assert (folder / "data/train.jsonl").read_bytes() == FILES["data/train.jsonl"]
    assert hub.downloads().count("data/train.jsonl") == 1


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An endpoint that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.3)
        yield


@pytest.mark.usefixtures("silence")
def test_a_hub_that_never_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr("lorif_assets.hub.snapshots._current_commit", lambda name: asked.append(0) or time.sleep(60))
    for _ in range(3):
        with pytest.raises(HubError, match="hf://datasets/org/name"):
            snapshot_of(NAME)
    assert len(asked) == 1
