"""Names of metrics as MLflow takes them."""

import re
from hashlib import blake2b
from posixpath import normpath

_REFUSED = re.compile(r"[^\w.\- :]")
_LONGEST = 250
_HASH_BYTES = 4


def metric_name(figure: str, *parts: str) -> str:
    """Return the name of a figure of something, for instance of a query set; MLflow's charts are grouped by the figure.

    What MLflow does not take in a name is replaced, and a hash keeps such names apart.
    """
    return "/".join([figure, *map(_part, parts)])


def _part(name: str) -> str:
    plain = _REFUSED.sub("_", name)[: _LONGEST // 2]
    if plain == name and normpath(plain) == plain and not plain.startswith("."):
        return plain
    return f"{plain.lstrip('.') or '_'}-{blake2b(name.encode(), digest_size=_HASH_BYTES).hexdigest()}"
