"""Where pages lie in the lake: one address for each, whatever checkpoints and query sets are called.

A name that another page's address begins with, or that differs from another name by capitals alone, which is one file on many
disks, gets a comma and a hash of itself; no name of a partition has a comma.
"""

from hashlib import blake2b

_FOLDER = "reports"
_COMPARISON = "comparison"
_EVALUATION = "evaluation-"


def report_address(checkpoint: str, query_set: str) -> str:
    """Return the address of a report, relative to the lake's root."""
    return f"{_FOLDER}/{_checkpoint(checkpoint)}/{report_file(query_set)}"


def report_file(query_set: str) -> str:
    """Return what the file of a report is called."""
    return f"{_alone(query_set, is_taken=query_set.startswith(_EVALUATION))}.html"


def evaluation_address(checkpoint: str, query_set: str) -> str:
    """Return the address of an evaluation page, relative to the lake's root."""
    return f"{_FOLDER}/{_checkpoint(checkpoint)}/{evaluation_file(query_set)}"


def evaluation_file(query_set: str) -> str:
    """Return what the file of an evaluation page is called."""
    return f"{_EVALUATION}{_alone(query_set)}.html"


def comparison_address(query_set: str) -> str:
    """Return the address of the page that compares checkpoints, relative to the lake's root."""
    return f"{_FOLDER}/{_COMPARISON}/{_alone(query_set)}.html"


def comparison_link(query_set: str) -> str:
    """Return the address of the same page, relative to that of a report."""
    return f"../{_COMPARISON}/{_alone(query_set)}.html"


def _checkpoint(name: str) -> str:
    return _alone(name, is_taken=name == _COMPARISON)


def _alone(name: str, *, is_taken: bool = False) -> str:
    if not is_taken and name == name.casefold():
        return name
    return f"{name},{blake2b(name.encode(), digest_size=4).hexdigest()}"
