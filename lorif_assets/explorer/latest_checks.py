"""What the checks of assets said when they last ran, read again while the explorer runs."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from lorif_assets.influences.trust import CheckOutcome

_LOG = logging.getLogger(__name__)
_KEPT_SECONDS = 10.0


class LatestChecks:
    """The last outcome of each check, in Dagster's records; none where there are none."""

    def __init__(self, dagster_home: Path | None) -> None:
        """Take Dagster's home; None: there is none."""
        self._home = dagster_home
        self._found: Sequence[CheckOutcome] = ()
        self._reading: Future[Sequence[CheckOutcome]] | None = None
        self._read_at = float("-inf")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checks")

    def outcomes(self, patience: float = 0.0) -> Sequence[CheckOutcome]:
        """Return what is known, and have it read again in the background where that is some seconds old.

        Args:
            patience: seconds that this may take where it is being read.
        """
        if self._home is None:
            return ()
        if self._reading is None and time.monotonic() - self._read_at > _KEPT_SECONDS:
            self._reading = self._thread.submit(self._read, self._home)
        if (reading := self._reading) is not None and wait([reading], patience).done:
            self._found, self._read_at, self._reading = reading.result(), time.monotonic(), None
        return self._found

    def _read(self, home: Path) -> Sequence[CheckOutcome]:
        from lorif_assets.checks.latest_results import latest_results

        try:
            return latest_results(home)
        except Exception as error:
            _LOG.warning("What the checks said last cannot be read from %s: %s", home, error)
            return self._found
