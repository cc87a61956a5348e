"""Which data a curvature state holds: for each shard the hash of its examples and the file that was added."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.attribution.stored.versions import ledger_version
from lorif_assets.lake.lake import FactorFile


@dataclass(frozen=True)
class LedgerEntry:
    """One shard of a state. Its file can be read after the table moves on, until the table is vacuumed."""

    shard_hash: str
    path: str
    rows: int


@dataclass(frozen=True)
class LedgerDifference:
    """Files to subtract from a state and to add to it, so that it holds the factors stored now."""

    removals: tuple[FactorFile, ...]
    additions: tuple[FactorFile, ...]

    @property
    def rows(self) -> int:
        """Examples to read."""
        return sum(file.rows for file in (*self.removals, *self.additions))


@dataclass(frozen=True)
class Ledger:
    """The shards of a state, by name."""

    entries: Mapping[str, LedgerEntry]

    @classmethod
    def of(cls, factors: StoredFactors, paths: Mapping[str, str]) -> "Ledger":
        """Return the ledger of a state that holds all stored factors; `paths` are the files added for each shard."""
        return cls(
            {
                file.shard: LedgerEntry(factors.shard_hashes[file.shard], paths[file.shard], file.rows)
                for file in factors.files
            }
        )

    @classmethod
    def parse(cls, text: str) -> "Ledger":
        """Return a ledger from its JSON."""
        return cls({shard: LedgerEntry(**entry) for shard, entry in json.loads(text).items()})

    def json(self) -> str:
        """Return the ledger as JSON."""
        return json.dumps({shard: asdict(entry) for shard, entry in self.entries.items()}, sort_keys=True)

    @property
    def version(self) -> str:
        """The hash of the data that the state holds, wherever their files are."""
        return ledger_version({shard: entry.shard_hash for shard, entry in self.entries.items()})

    def difference(self, target: "Ledger") -> LedgerDifference:
        """Return what turns this ledger into the target; a changed shard is subtracted and added."""

        def files(source: "Ledger", target: "Ledger") -> tuple[FactorFile, ...]:
            return tuple(
                FactorFile(shard, entry.path, entry.rows)
                for shard, entry in source.entries.items()
                if shard not in target.entries or target.entries[shard].shard_hash != entry.shard_hash
            )

        return LedgerDifference(removals=files(self, target), additions=files(target, self))

    def explained(self, target: "Ledger") -> str:
        """Return the difference to the target in words."""
        held_shards, target_shards = self.entries.keys(), target.entries.keys()
        changed = sum(self.entries[s].shard_hash != target.entries[s].shard_hash for s in held_shards & target_shards)
        return f"{len(target_shards - held_shards)} shards are new, {len(held_shards - target_shards)} gone, {changed} changed"
