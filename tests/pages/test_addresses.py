"""Every page has an address of its own, whatever its checkpoint and query set are called, on every kind of disk."""

from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.pages.addresses import comparison_address, comparison_link, evaluation_address, report_address

NAMES = st.one_of(
    st.sampled_from(["comparison", "Comparison", "evaluation-x", "x", "X", "Evaluation-x", "evaluation-evaluation-x"]),
    st.from_regex(r"\A(evaluation-)?[a-bA-B~._-]{1,3}\Z"),
)


def test_ordinary_names_stand_in_addresses_as_they_are() -> None:
    assert report_address("step-000100", "questions") == "reports/step-000100/questions.html"
    assert evaluation_address("step-000100", "questions") == "reports/step-000100/evaluation-questions.html"
    assert comparison_address("questions") == "reports/comparison/questions.html"
    assert comparison_link("questions") == "../comparison/questions.html"


def test_a_checkpoint_called_comparison_and_a_query_set_called_as_an_evaluation_is_overwrite_no_page() -> None:
    assert report_address("comparison", "questions") != comparison_address("questions")
    assert report_address("step-1", "evaluation-questions") != evaluation_address("step-1", "questions")
    assert report_address("step-1", "Questions").lower() != report_address("step-1", "questions").lower()


@given(pages=st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=8, unique=True))
def test_no_two_pages_share_an_address_even_where_capitals_do_not_count(pages: list[tuple[str, str]]) -> None:
    addresses = [
        *(report_address(*page) for page in pages),
        *(evaluation_address(*page) for page in pages),
        *(comparison_address(query_set) for query_set in {query_set for _, query_set in pages}),
    ]
    assert len({address.casefold() for address in addresses}) == len(addresses)


@given(query_set=NAMES)
def test_a_report_links_to_the_comparison_of_its_query_set(query_set: str) -> None:
    assert comparison_address(query_set).endswith(comparison_link(query_set).removeprefix(".."))
