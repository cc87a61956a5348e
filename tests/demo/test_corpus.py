import hashlib
import os
import re
import subprocess
import sys
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest

from lorif_assets.demo.corpus import Corpus, build_corpus, corpus_of, is_held_out, write_passages, write_shards
from lorif_assets.demo.language_reference import sections, topics_of_this_python
from lorif_assets.demo.passages import Entry


@pytest.fixture(scope="session")
def passages(corpus):
    return corpus.train + corpus.held_out


def test_two_builds_give_the_same_corpus(corpus):
    assert build_corpus() == corpus


def test_another_process_with_another_hash_seed_builds_the_same_corpus(corpus):
    command = "import hashlib; from lorif_assets.demo.corpus import build_corpus as build; "
    command += "print(hashlib.sha256(repr(build()).encode()).hexdigest())"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(repr(corpus).encode()).hexdigest()


def test_ids_are_unique_and_say_where_a_passage_comes_from(passages):
    ids = [passage.id for passage in passages]
    assert len(set(ids)) == len(ids)
    prefixes = {"language reference": "topics", "standard library": "stdlib"}
    for passage in passages:
        assert re.fullmatch(rf"{prefixes[passage.source]}/{re.escape(passage.topic)}/\d{{3}}", passage.id)


def test_no_passage_is_there_twice(passages):
    normalised = {" ".join(passage.text.lower().split()) for passage in passages}
    assert len(normalised) == len(passages)


def test_there_are_some_thousand_passages_from_both_sources(corpus):
    assert 2_000 < len(corpus.train) < 8_000
    assert {passage.source for passage in corpus.train} == {"language reference", "standard library"}


def test_passages_are_neither_fragments_nor_chapters(passages):
    lengths = sorted(len(passage.text) for passage in passages)
    assert lengths[len(lengths) // 20] > 150
    assert lengths[-1] < 1_600


def test_a_topic_name_means_one_thing(passages):
    assert len({(passage.topic, passage.source) for passage in passages}) == len({p.topic for p in passages})


def test_passages_of_the_with_section_have_the_topic_with(passages):
    titled = [passage for passage in passages if passage.title == 'The "with" statement']
    assert len(titled) >= 3
    assert {passage.topic for passage in titled} == {"with"}


def test_a_text_repeated_in_a_broader_topic_is_kept_once_under_the_specific_one():
    body = "It wraps the execution of a block with methods that a context manager defines."
    topics = {
        "with": f"With\n****\n\n{body}",
        "compound": f"Compound\n********\n\nA longer text that is here only to make this topic the longer one.\n\n"
        f"With\n====\n\n{body}",
    }
    corpus = corpus_of(sections(topics), {})
    assert [p.topic for p in corpus.train + corpus.held_out if body in p.text] == ["with"]


def test_the_text_of_a_topic_survives_in_its_passages(passages):
    words = [word for word in topics_of_this_python()["with"].split() if not set(word) <= set("*=-~")]
    kept = " ".join(" ".join(p.text.split()) for p in passages if p.topic == "with")
    assert all(" ".join(words[i : i + 5]) in kept for i in range(0, 100, 5))


def test_about_five_percent_is_held_out_by_the_id_alone(corpus):
    assert all(is_held_out(passage.id) for passage in corpus.held_out)
    assert not any(is_held_out(passage.id) for passage in corpus.train)
    assert 0.03 < len(corpus.held_out) / len(corpus.train + corpus.held_out) < 0.07


def test_no_held_out_text_is_in_training(corpus):
    assert not {passage.text for passage in corpus.held_out} & {passage.text for passage in corpus.train}


def test_shards_one_after_another_are_the_training_passages(corpus, tmp_path):
    paths = write_shards(corpus, tmp_path, shards=8)
    assert [path.name for path in paths] == [f"{shard:05d}.parquet" for shard in range(8)]
    assert sorted(tmp_path.iterdir()) == paths
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert rows == [asdict(passage) for passage in corpus.train]


def test_shards_are_of_near_equal_size(corpus, tmp_path):
    sizes = [pq.read_metadata(path).num_rows for path in write_shards(corpus, tmp_path, shards=7)]
    assert max(sizes) - min(sizes) <= 1


def test_writing_again_gives_the_same_bytes(corpus, tmp_path):
    first, second = (write_passages(corpus.held_out, tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_topics_are_those_of_the_training_passages(corpus):
    small = Corpus(train=corpus.train[:3], held_out=corpus.held_out[-3:])
    assert small.topics == {passage.topic for passage in corpus.train[:3]}


def test_entries_without_text_make_no_passage():
    assert corpus_of({"empty": [[Entry("empty", "")]]}, {}) == Corpus((), ())
