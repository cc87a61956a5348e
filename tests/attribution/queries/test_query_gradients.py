"""Gradients of what queries ask about: plain autograd's, of a span, a contrast, a weighted set and a scalar."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import torch
from tokenizers import normalizers

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.pairs.token_shares import token_shares
from lorif_assets.attribution.queries.precondition_queries import precondition
from lorif_assets.attribution.queries.query_gradients import stream_query_gradients
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.content.query_objectives import NO_SCALARS, ScalarRules
from lorif_assets.data.questions import row_question
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import MismatchError, UnsoundQueryError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, REPORTS, TOKEN_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.progress import watched
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject

PROMPT, COMPLETION, OTHER = "the with statement", " opens a file", " fails by an error"
PROBE = """
import torch

def probe(output, batch):
    '''The projection of the last token's hidden state behind the first block onto a direction.'''
    hidden = output.hidden_states[1]
    last = batch.attention_mask.long().sum(1) - 1
    return hidden[torch.arange(len(hidden)), last] @ torch.linspace(-1, 1, hidden.shape[-1], dtype=hidden.dtype)

def nothing(output, batch):
    return torch.zeros(len(batch.input_ids))

def endless(output, batch):
    return output.logits.sum((1, 2)) * float("nan")

def broken(output, batch):
    raise ValueError("no such direction")
"""


@pytest.fixture(scope="module")
def checkpoint(tiny_project: TinyProject) -> AttributedCheckpoint:
    stored = StoredCheckpoint.read(tiny_project.lake, CHECKPOINTS[-1], tiny_project.settings.recipe)
    with tiny_project.opened.devices.lease() as group:
        return stored.load(tiny_project.opened.checkpoints, group)


@pytest.fixture
def rules(tmp_path: Path) -> ScalarRules:
    (tmp_path / "probes.py").write_text(PROBE)
    return ScalarRules(allowed=True, base=tmp_path)


def tokenized(
    checkpoint: AttributedCheckpoint, row: dict[str, Any], rules: ScalarRules = NO_SCALARS
) -> TokenizedExample:
    question = {"query_id": "asked", "row": 0, **row_question(row, rules)}
    shard = checkpoint.model.tokenized_queries(pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns))
    assert not shard.rejected.num_rows, shard.rejected.to_pylist()
    return shard.examples[0]


def text_of(checkpoint: AttributedCheckpoint, example: TokenizedExample) -> str:
    """What of an example carries loss."""
    ids = [int(token) for token, label in zip(example.input_ids, example.labels, strict=True) if label != -100]
    return str(checkpoint.model.tokenizer.decode(ids))


def gradients(checkpoint: AttributedCheckpoint, query: TokenizedExample) -> tuple[float, dict[str, torch.Tensor]]:
    found: dict[str, torch.Tensor] = {}
    value = stream_query_gradients(
        checkpoint.model, [query], lambda layer, _, g: found.update({layer: g[0].double()}), BatchSettings()
    )
    return float(value[0]), found


def by_autograd(
    checkpoint: AttributedCheckpoint, objective: Callable[[torch.nn.Module], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """P_in^T (d objective / dW) P_out by plain autograd in FP64."""
    model = copy.deepcopy(checkpoint.model.model).double().eval().requires_grad_(False)
    modules = dict(model.named_modules())
    weights = {p.layer.name: modules[p.layer.name].weight.requires_grad_(True) for p in checkpoint.model.projections}
    found = torch.autograd.grad(objective(model), list(weights.values()), allow_unused=True)
    by_layer = dict(zip(weights, found, strict=True))
    expected = {}
    for p in checkpoint.model.projections:
        gradient = by_layer[p.layer.name]
        gradient = torch.zeros_like(weights[p.layer.name]) if gradient is None else gradient
        expected[p.layer.name] = p.p_in.double().T @ gradient @ p.p_out.double()
    return expected


def loss(checkpoint: AttributedCheckpoint, model: torch.nn.Module, prompt: str, said: str) -> torch.Tensor:
    """The summed loss of a completion's tokens."""
    encode = checkpoint.model.tokenizer
    before, ids = len(encode(prompt)["input_ids"]), encode(prompt + said)["input_ids"]
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    total = logits.sum() * 0.0
    for place in range(max(before, 1), len(ids)):
        total = total - torch.log_softmax(logits[place - 1], dim=-1)[ids[place]]
    return total


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 0
    for layer, gradient in expected.items():
        torch.testing.assert_close(found[layer], gradient, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("span", ["opens", [1, 6]])
def test_a_span_s_gradient_is_that_of_its_tokens_alone(checkpoint: AttributedCheckpoint, span: Any) -> None:
    query = tokenized(checkpoint, {"prompt": PROMPT, "completion": COMPLETION, "span": span})
    assert text_of(checkpoint, query).strip() == "opens"
    value, found = gradients(checkpoint, query)
    # The space before it is a token of its own.
    shorter = lambda model: loss(checkpoint, model, f"{PROMPT} ", "opens")  # noqa: E731
    assert_same(found, by_autograd(checkpoint, shorter))
    assert value == pytest.approx(float(shorter(copy.deepcopy(checkpoint.model.model).double()).detach()), rel=1e-5)


def test_a_contrast_s_gradient_is_that_of_the_difference_of_two_losses(checkpoint: AttributedCheckpoint) -> None:
    query = tokenized(checkpoint, {"prompt": PROMPT, "completion": COMPLETION, "against": OTHER})
    difference = lambda model: (  # noqa: E731
        loss(checkpoint, model, PROMPT, COMPLETION) - loss(checkpoint, model, PROMPT, OTHER)
    )
    value, found = gradients(checkpoint, query)
    assert_same(found, by_autograd(checkpoint, difference))
    assert value == pytest.approx(float(difference(copy.deepcopy(checkpoint.model.model).double()).detach()), rel=1e-4)


def test_a_contrast_of_chats_holds_the_last_answer_with_its_calls_against_another(
    checkpoint: AttributedCheckpoint,
) -> None:
    tokenizer = copy.deepcopy(checkpoint.model.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls %} with{% endif %}{{ eos_token }}{% endfor %}"
    )
    model = replace(checkpoint.model, tokenizer=tokenizer)
    calls = {"tool_calls": [{"type": "function", "function": {"name": "open", "arguments": {}}}]}
    chat = [{"role": role, "content": text} for role, text in (("user", "Why a file?"), ("assistant", "So it ends"))]

    def of(messages: list[dict[str, Any]], **asked: str) -> TokenizedExample:
        row = row_question({"messages": messages, **asked}, NO_SCALARS)
        question = {"query_id": "asked", "row": 0, **row}
        (query,) = model.tokenized_queries(pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns)).examples
        return query

    asked = of([chat[0], {**chat[1], **calls}], against="it opens")
    assert asked.objective is not None
    for term, weight, messages in zip(
        asked.objective.terms,
        (1.0, -1.0),
        ([chat[0], {**chat[1], **calls}], [chat[0], {"role": "assistant", "content": "it opens"}]),
        strict=True,
    ):
        wanted = of(messages)
        assert term.weight == weight
        assert term.tokens.input_ids.tolist() == wanted.input_ids.tolist()
        assert term.tokens.labels.tolist() == wanted.labels.tolist()


def test_each_chat_of_a_weighted_set_has_the_tokens_that_it_has_alone(checkpoint: AttributedCheckpoint) -> None:
    tokenizer = copy.deepcopy(checkpoint.model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    model = replace(checkpoint.model, tokenizer=tokenizer)
    chats: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Why a file?"}, {"role": "assistant", "content": said}]}
        for said in ("So it ends", "it opens")
    ]
    alone: list[dict[str, Any]] = [*chats, {"prompt": PROMPT, "completion": COMPLETION}]

    def of(line: dict[str, Any]) -> TokenizedExample:
        question = {"query_id": "asked", "row": 0, **row_question(line, NO_SCALARS)}
        (query,) = model.tokenized_queries(pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns)).examples
        return query

    weights = (2.0, -1.0, 0.5)
    asked = of({"weighted": [{**one, "weight": by} for one, by in zip(alone, weights, strict=True)]})
    assert [term.weight for term in asked.terms] == [*weights]
    for term, wanted in zip(asked.terms, map(of, alone), strict=True):
        assert term.tokens.input_ids.tolist() == wanted.input_ids.tolist()
        assert term.tokens.labels.tolist() == wanted.labels.tolist()


def test_a_weighted_set_s_gradient_is_the_weighted_sum(checkpoint: AttributedCheckpoint) -> None:
    members = [
        {"prompt": PROMPT, "completion": COMPLETION, "weight": 2.0},
        {"prompt": "its block", "completion": " ends", "weight": -0.5},
        {"prompt": "a file", "completion": OTHER},
    ]
    query = tokenized(checkpoint, {"weighted": members})
    weighted = lambda model: (  # noqa: E731
        2.0 * loss(checkpoint, model, PROMPT, COMPLETION)
        - 0.5 * loss(checkpoint, model, "its block", " ends")
        + loss(checkpoint, model, "a file", OTHER)
    )
    _, found = gradients(checkpoint, query)
    assert_same(found, by_autograd(checkpoint, weighted))


def test_a_scalar_s_gradient_is_autograd_s_with_its_sign_turned(
    checkpoint: AttributedCheckpoint, rules: ScalarRules
) -> None:
    query = tokenized(checkpoint, {"prompt": PROMPT, "completion": COMPLETION, "scalar": "probes.py:probe"}, rules)
    ids = torch.tensor([query.input_ids.tolist()])

    def turned(model: torch.nn.Module) -> torch.Tensor:
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[1][0, -1]
        return -(hidden @ torch.linspace(-1, 1, len(hidden), dtype=hidden.dtype))

    value, found = gradients(checkpoint, query)
    assert_same(found, by_autograd(checkpoint, turned))
    # The second block is behind the probe.
    assert all(not g.any() for layer, g in found.items() if ".h.1." in layer)
    assert value == pytest.approx(-float(turned(copy.deepcopy(checkpoint.model.model).double()).detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("broken", "no such direction"), ("nothing", "found a tensor .1., through which no gradient flows")],
)
def test_a_scalar_that_fails_names_its_query(
    checkpoint: AttributedCheckpoint, rules: ScalarRules, name: str, expected: str
) -> None:
    query = tokenized(checkpoint, {"text": PROMPT, "scalar": f"probes.py:{name}"}, rules)
    with pytest.raises(UnsoundQueryError, match=f"the scalar of query 'asked' failed: ValueError: .*{expected}"):
        gradients(checkpoint, query)


def test_a_scalar_that_is_not_finite_is_named_and_the_checkpoint_not_suspected(
    checkpoint: AttributedCheckpoint, rules: ScalarRules
) -> None:
    query = tokenized(checkpoint, {"text": PROMPT, "scalar": "probes.py:endless"}, rules)
    with pytest.raises(
        UnsoundQueryError, match=r"the scalar or a gradient of query 'asked' .*is the code of the scalar"
    ):
        precondition(checkpoint.model, [query], checkpoint.inverse_of, BatchSettings())


def test_how_far_the_passes_of_queries_are_is_told_by_the_tokens_of_all_that_they_ask_about(
    checkpoint: AttributedCheckpoint,
) -> None:
    asked = [{"text": COMPLETION}, {"prompt": PROMPT, "completion": COMPLETION}]
    contrast = {"prompt": PROMPT, "completion": COMPLETION, "against": OTHER}
    queries = [tokenized(checkpoint, row) for row in (*asked, contrast)]
    lengths = [sum(len(term.tokens.input_ids) for term in query.terms) for query in queries]
    told: list[tuple[str, int, int, str]] = []
    with watched(lambda *state: told.append(state)):
        precondition(checkpoint.model, queries, checkpoint.inverse_of, BatchSettings(tokens=1))
    assert {(label, total, unit) for label, _, total, unit in told} == {
        (f"{CHECKPOINTS[-1]} queries", sum(lengths), "tok")
    }
    # The largest batch first, a query of several terms last.
    assert [done for _, done, _, _ in told] == [0, lengths[1], lengths[0] + lengths[1], sum(lengths)]


def test_token_shares_of_several_terms_sum_to_the_score_together(
    checkpoint: AttributedCheckpoint, rules: ScalarRules
) -> None:
    (example,) = listed_examples(checkpoint.stored.lake, checkpoint.model, [(SHARDS[0], "doc0-3")]).values()
    contrast = tokenized(checkpoint, {"prompt": PROMPT, "completion": COMPLETION, "against": OTHER})
    scalar = tokenized(checkpoint, {"text": PROMPT, "scalar": "probes.py:probe"}, rules)
    for query, n_terms in ((contrast, 2), (scalar, 0)):
        ((_, shares),) = token_shares(checkpoint.model, checkpoint.inverse_of, query, [example], BatchSettings())
        assert len(shares.of_query) == n_terms
        assert float(shares.of_example.double().sum()) == pytest.approx(shares.score, rel=1e-4, abs=1e-6)
        if n_terms:
            total = sum(float(term.double().sum()) for term in shares.of_query)
            assert total == pytest.approx(shares.score, rel=1e-4, abs=1e-6)


def test_a_span_takes_every_token_that_has_a_character_of_it(checkpoint: AttributedCheckpoint) -> None:
    # The space is the first character of the completion's first token.
    query = tokenized(checkpoint, {"prompt": PROMPT, "completion": COMPLETION, "span": [0, 1]})
    assert query.n_targets == 1
    assert text_of(checkpoint, query).startswith(" ")
    emoji = tokenized(
        checkpoint, {"prompt": PROMPT, "completion": " a \N{GRINNING FACE} b", "span": "\N{GRINNING FACE}"}
    )
    assert text_of(checkpoint, emoji).strip() == "\N{GRINNING FACE}"


def test_a_span_is_found_where_the_tokenizer_normalises_what_it_reads(checkpoint: AttributedCheckpoint) -> None:
    tokenizer = copy.deepcopy(checkpoint.model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    question = {
        "query_id": "asked",
        "row": 0,
        **row_question(
            {"text": "a \N{LATIN SMALL LIGATURE FI}le", "span": "\N{LATIN SMALL LIGATURE FI}le"}, NO_SCALARS
        ),
    }
    table = pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns)
    found = replace(checkpoint.model, tokenizer=tokenizer).tokenized_queries(table)
    assert found.rejected.num_rows == 0
    assert text_of(checkpoint, found.examples[0]).strip() == "file"


def test_a_span_that_only_the_prompt_of_a_chat_holds_sets_the_query_aside(checkpoint: AttributedCheckpoint) -> None:
    tokenizer = copy.deepcopy(checkpoint.model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    chat = [{"role": "user", "content": "Why a file?"}, {"role": "assistant", "content": "So it ends"}]
    for span, n_reasons in (("Why", 1), ("it ends", 0)):
        question = {"query_id": "asked", "row": 0, **row_question({"messages": chat, "span": span}, NO_SCALARS)}
        table = pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns)
        found = replace(checkpoint.model, tokenizer=tokenizer).tokenized_queries(table)
        assert found.rejected.num_rows == n_reasons
        if n_reasons:
            assert "occurs 0 times in the tokens that carry loss" in found.rejected["reason"][0].as_py()
        else:
            assert text_of(checkpoint, found.examples[0]).strip() == "it ends"


def test_a_span_is_found_where_the_prompt_of_a_chat_has_it_in_another_normal_form(
    checkpoint: AttributedCheckpoint,
) -> None:
    tokenizer = copy.deepcopy(checkpoint.model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    composed, decomposed = "r\u00e9sum\u00e9", "re\u0301sume\u0301"
    chat = [
        {"role": "user", "content": f"What is a {composed}?"},
        {"role": "assistant", "content": f"A {decomposed} is"},
    ]
    question = {"query_id": "asked", "row": 0, **row_question({"messages": chat, "span": composed}, NO_SCALARS)}
    table = pa.Table.from_pylist([question], schema=QUERY_EXAMPLES.columns)
    found = replace(checkpoint.model, tokenizer=tokenizer).tokenized_queries(table)
    assert found.rejected.num_rows == 0
    assert text_of(checkpoint, found.examples[0]).strip() == decomposed


def test_query_sets_of_every_kind_are_stored_scored_and_shown_as_what_they_are(
    private_project: TinyProject,
) -> None:
    (private_project.root / "probes.py").write_text(PROBE)
    rows = [
        {"id": "plain", "prompt": PROMPT, "completion": COMPLETION},
        {"id": "span", "prompt": PROMPT, "completion": COMPLETION, "span": "opens"},
        {"id": "contrast", "prompt": PROMPT, "completion": COMPLETION, "against": OTHER},
        {
            "id": "set",
            "weighted": [{"prompt": PROMPT, "completion": COMPLETION, "weight": 2}, {"completion": "a file"}],
        },
        {"id": "probe", "prompt": PROMPT, "completion": COMPLETION, "scalar": "probes.py:probe"},
    ]
    (private_project.root / "queries" / "kinds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    project = private_project.with_settings(
        queries={"allow_scalars": True},
        active={"checkpoints": (CHECKPOINTS[-1],), "query_sets": ("kinds",)},
        token_scores={"enabled": True, "top_k": 1},
    )
    project.update()
    key = {"checkpoint": CHECKPOINTS[-1], "query_set": "kinds"}
    scores = project.table(QUERY_SCORES, **key)
    assert set(scores["query_id"]) == {row["id"] for row in rows}
    leading = {query: rows["example_id"].to_list() for (query,), rows in scores.group_by("query_id")}
    assert leading["plain"] != leading["contrast"]
    terms = project.table(TOKEN_SCORES, **key).filter(pl.col("side") == "query").group_by("query_id")
    assert dict(terms.agg(pl.col("term").n_unique()).iter_rows()) == {"plain": 1, "span": 1, "contrast": 2, "set": 2}
    (where,) = project.table(REPORTS, **key)["uri"]
    page = Path(where).read_text()
    for said in ("The span", "Against", "2 weighted completions", "probes.py:probe"):
        assert said in page
    # The code is part of the query.
    (private_project.root / "probes.py").write_text(PROBE.replace("(-1, 1,", "(-2, 1,"))
    with pytest.raises(MismatchError, match="changed since the query was read"):
        project.run("query_scores", f"{CHECKPOINTS[-1]}|kinds")
