"""Hashes of anything that JSON can hold."""

import json
from hashlib import blake2b

# Made once: making it takes as long as a hash, and a look at many shards needs two hashes for each.
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_hash(content: object) -> str:
    """Return the hash of anything that JSON can hold; the order of keys does not matter."""
    return blake2b(_CANONICAL.encode(content).encode(), digest_size=16).hexdigest()
