"""Archives among the fixtures: lakes and projects as they were once stored."""

import tarfile
from pathlib import Path

FIXTURES = Path(__file__).with_name("fixtures")


def unpack(archive: str, folder: Path) -> None:
    """Unpack a file of the fixtures, times included."""
    with tarfile.open(FIXTURES / archive) as packed:
        # The archives are the repository's own; the argument `filter` came with Python 3.11.4 only.
        packed.extractall(folder)
