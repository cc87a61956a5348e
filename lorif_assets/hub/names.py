"""Names of repositories on the hub, as settings write them."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from lorif_assets.config.hub_names import MODELS_WITHOUT_OWNER
from lorif_assets.errors import HubError

PREFIX = "hf://"
_DATASETS = "datasets/"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WITHOUT_OWNER = re.compile(rf"(?:{'|'.join(sorted(MODELS_WITHOUT_OWNER))})(?=@|$)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# The only revisions of the hub's own with a slash; in others it is written %2F.
_REVISION = re.compile(r"@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+)(?P<rest>/.*)?")


@dataclass(frozen=True)
class HubName:
    """A repository, the revision of it that is meant, and a place in it."""

    kind: Literal["model", "dataset"]
    repository: str
    """`organisation/name`; of models that are older than organisations, the name alone."""
    revision: str | None = None
    """A branch, a tag or a commit; None: the default branch."""
    path: str = ""
    """A folder, a file or the like in the repository; empty: all of it."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `hf://org/name@revision/path` or `hf://datasets/org/name@revision/path` means.

        Raises:
            HubError: the text is no such name.
        """
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        place = text.removeprefix(PREFIX).removeprefix("models/").strip("/")
        kind: Literal["model", "dataset"] = "dataset" if place.startswith(_DATASETS) else "model"
        place = place.removeprefix(_DATASETS)
        found = _REPOSITORY.match(place) or (_WITHOUT_OWNER.match(place) if kind == "model" else None)
        rest = place[found.end() :] if found else ""
        revised = _REVISION.fullmatch(rest)
        if not found or place.startswith(("spaces/", "buckets/")) or not (not rest or rest.startswith("/") or revised):
            raise HubError(
                f"{text!r} is no name of a repository on the hub; expected hf://org/name@revision for a model, or "
                "hf://datasets/org/name@revision/path for a data set, where revision (a branch, tag or commit) and path may "
                "be left out, and a slash in a revision is %2F"
            )
        try:
            validate_repo_id(found[0])
        except HFValidationError as error:
            raise HubError(f"{text!r} is no name of a repository on the hub: {error}") from error
        revision = revised["revision"].replace("%2F", "/").replace("%2f", "/") if revised else None
        path = ((revised["rest"] or "") if revised else rest).strip("/")
        return cls(kind, found[0], revision, path)

    @property
    def is_pinned(self) -> bool:
        """Whether the name stands for the same files for ever: it has the hash of a commit."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def followed(self) -> str:
        """The revision in words: the branch or tag, `main` where none is named, or a commit's first digits."""
        return (self.revision or "main") if not self.is_pinned else str(self.revision)[:12]

    def at(self, commit: str, path: str | None = None) -> str:
        """Return the name of a place in the repository as it was at a commit; without one, of this name's place."""
        place = self.path if path is None else path
        kind = _DATASETS if self.kind == "dataset" else ""
        return f"{PREFIX}{kind}{self.repository}@{commit}" + (f"/{place}" if place else "")

    def __str__(self) -> str:
        kind = _DATASETS if self.kind == "dataset" else ""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        if self.revision and self.revision.startswith("refs/"):
            revision = f"@{self.revision}"
        return f"{PREFIX}{kind}{self.repository}{revision}" + (f"/{self.path}" if self.path else "")


def is_hub_name(text: str) -> bool:
    """Whether a text is written as the name of a repository on the hub (hf://...)."""
    return text.startswith(PREFIX)
