"""How settings write the names of repositories on the hub."""

import pytest

from lorif_assets.config.hub_names import is_plain_name
from lorif_assets.errors import HubError
from lorif_assets.hub.names import HubName

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://org/name", HubName("model", "org/name")),
        ("hf://models/org/name", HubName("model", "org/name")),
        ("hf://org/name@step1000", HubName("model", "org/name", "step1000")),
        ("hf://org/name/checkpoint-5", HubName("model", "org/name", None, "checkpoint-5")),
        ("hf://gpt2", HubName("model", "gpt2")),
        ("hf://gpt2-xl@main/onnx", HubName("model", "gpt2-xl", "main", "onnx")),
        ("hf://datasets/org/name", HubName("dataset", "org/name")),
        ("hf://datasets/org/name.v1@v1.0/data/*.jsonl", HubName("dataset", "org/name.v1", "v1.0", "data/*.jsonl")),
        (
            "hf://datasets/org/name@refs/convert/parquet/en",
            HubName("dataset", "org/name", "refs/convert/parquet", "en"),
        ),
        ("hf://datasets/org/name@refs/pr/3", HubName("dataset", "org/name", "refs/pr/3")),
        ("hf://datasets/org/name@my%2Fbranch/en", HubName("dataset", "org/name", "my/branch", "en")),
        ("hf://datasets/org/name/a@b.jsonl", HubName("dataset", "org/name", None, "a@b.jsonl")),
    ],
)
def test_a_name_has_a_repository_a_revision_and_a_place(text: str, name: HubName) -> None:
    assert HubName.parse(text) == name
    assert HubName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "hf://llama",
        "hf://datasets/squad",
        "hf://datasets/gpt2",
        "hf://",
        "hf://org/name@",
        "hf://org/name@/a",
        "hf://spaces/org/name",
    ],
)
def test_what_is_no_name_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(HubError, match=r"expected hf://org/name@revision for a model, or hf://datasets/org/name"):
        HubName.parse(text)


def test_a_repository_that_the_hub_could_not_have_is_refused() -> None:
    with pytest.raises(HubError, match="'hf://org/a--b' is no name of a repository on the hub"):
        HubName.parse("hf://org/a--b")


def test_only_a_whole_commit_pins_a_name() -> None:
    assert HubName.parse(f"hf://org/name@{COMMIT}").is_pinned
    assert not HubName.parse("hf://org/name@0123456").is_pinned
    assert not HubName.parse("hf://org/name").is_pinned


def test_a_plain_name_is_an_organisation_and_a_name_or_older_than_organisations() -> None:
    assert is_plain_name("org/name")
    assert is_plain_name("org/name@v1")
    assert is_plain_name("gpt2")
    assert is_plain_name("distilgpt2@v1")
    assert not any(map(is_plain_name, ["checkpoints", "../name", "./name", "/org/name", "a/b/c", "~/name", "org/"]))
