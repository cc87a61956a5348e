"""Checkpoints whose files are not complete: which ones, what is said of them, and what that means for `newest`.

One that was recorded and lost a file since is not a new one that is still being written: its results stay, and are marked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lorif_assets.config.content_hash import content_hash
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.project import Project


@dataclass(frozen=True)
class LookedCheckpoints:
    """The checkpoints that were found, in order of step, and what is missing of those that are not complete.

    `faults` says by name what is missing; `waiting` names those of them that may still be in writing, `recorded` those that the
    lake holds results of. `notes` say what was passed over, and `same` by name which of it are links and copies.
    """

    checkpoints: Sequence[CheckpointFiles]
    faults: Mapping[str, str]
    waiting: frozenset[str] = frozenset()
    recorded: frozenset[str] = frozenset()
    notes: Sequence[str] = ()
    same: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all of them."""
        return [checkpoint.name for checkpoint in self.checkpoints]

    @property
    def complete(self) -> tuple[CheckpointFiles, ...]:
        """Those that can be attributed."""
        return tuple(checkpoint for checkpoint in self.checkpoints if checkpoint.name not in self.faults)

    @property
    def lost(self) -> Mapping[str, str]:
        """What is missing of those that are no new ones, by name."""
        return {name: fault for name, fault in self.faults.items() if name in self.recorded or name not in self.waiting}

    def sentences(self, *, active: str | Sequence[str]) -> Iterator[str]:
        """Yield what a person should know, under a value of `active.checkpoints`."""
        yield from self.notes
        for name in self.faults:
            if name in self.waiting:
                stays = "; what was computed of it stays, and follows no change" if name in self.recorded else ""
                yield f"the checkpoint {name} is left out: {self.faults[name]}{stays}"
        later = [name for name in self.later_than_newest if name in self.lost]
        if active in ("auto", "newest") and later and self.complete:
            yield f"the newest checkpoint is {self.complete[-1].name} now, as {', '.join(later)} cannot be attributed"

    @property
    def later_than_newest(self) -> Sequence[str]:
        """The incomplete checkpoints after the last complete one; all, where none is."""
        return self.names[self.names.index(self.complete[-1].name) + 1 :] if self.complete else self.names

    def report_notices(self) -> Mapping[str, str]:
        """Return by checkpoint what its reports say: that it lost files, or that a later one did."""
        lost = self.lost
        notices = {
            name: f"Files of this checkpoint are missing now ({fault}). What is shown was computed before, and stays."
            for name, fault in lost.items()
            if name in self.recorded
        }
        later = [name for name in self.later_than_newest if name in lost]
        if self.complete and later:
            others = "; ".join(f"{name} is not ({lost[name]})" for name in later)
            notices[self.complete[-1].name] = f"This is the newest checkpoint that is complete: {others}."
        return notices


def look_at_checkpoints(project: Project) -> LookedCheckpoints:
    """Look at the checkpoints of a project; no weights are read.

    Raises:
        CheckpointError: the path does not exist.
    """
    found = project.checkpoints.look()
    faults: dict[CheckpointFiles, str] = {one: fault for one in found.checkpoints if (fault := one.fault())}
    return LookedCheckpoints(
        found.checkpoints,
        {checkpoint.name: fault for checkpoint, fault in faults.items()},
        frozenset(checkpoint.name for checkpoint in faults if checkpoint.may_be_in_writing()),
        frozenset(project.lake.without_damaged().read(CHECKPOINTS, ["checkpoint"])["checkpoint"]),
        found.notes,
        found.same,
    )


def marked_version(report: str, notice: str | None) -> str:
    """Return the version of a report, from that of what it shows and from what it says of its checkpoint's files."""
    return report if notice is None else content_hash([report, notice])
