"""What changes unseen and takes a while to look at, looked at again in the background while pages go on."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

_T = TypeVar("_T")


class BackgroundLook(Generic[_T]):
    """What a look found last; the next one begins when somebody asks and the last is some seconds old."""

    def __init__(self, look: Callable[[], _T], before: _T, seconds: float, name: str) -> None:
        """Take how to look, which raises nothing.

        Args:
            look: returns what is found.
            before: what counts as found until the first look ends.
            seconds: for which a look is new enough.
            name: of the thread that looks.
        """
        self._look, self._found, self._seconds = look, before, seconds
        self._looking: Future[_T] | None = None
        self._looked_at = float("-inf")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def found(self, patience: float = 0.0) -> _T:
        """Return what is known.

        Args:
            patience: seconds that this may take while somebody looks.
        """
        if self._looking is None and time.monotonic() - self._looked_at > self._seconds:
            self._looking = self._thread.submit(self._look)
        if (looking := self._looking) is not None and wait([looking], patience).done:
            self._found, self._looked_at, self._looking = looking.result(), time.monotonic(), None
        return self._found
