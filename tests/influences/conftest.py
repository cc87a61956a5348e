"""The lake of stored influences."""

import pytest

from lorif_assets.lake.lake import Lake
from tests.stored_influences import stored_influences


@pytest.fixture(scope="session")
def lake(tmp_path_factory) -> Lake:
    return stored_influences(tmp_path_factory.mktemp("influences"))
