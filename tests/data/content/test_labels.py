from tests.data.conftest import sequence


def test_a_label_at_the_first_position_is_no_target() -> None:
    assert sequence([True, True, False, True]).n_targets == 2
    assert sequence([True]).n_targets == 0
    assert sequence([]).n_targets == 0
