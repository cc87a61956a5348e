"""The code of the training recipe: its file is not part of what a retrained model is known by, but a change of it is told."""

import importlib.util
from hashlib import blake2b
from pathlib import Path

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.settings import Settings
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES
from lorif_assets.lake.lake import Lake


def trainer_hash(evaluation: EvaluationSettings) -> str | None:
    """Return the hash of the file of the trainer, or of the files that the command names; None where there is none."""
    files = _files(evaluation)
    if not files:
        return None
    digest = blake2b(digest_size=16)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def changed_trainer_notice(settings: Settings, lake: Lake) -> str | None:
    """Return that stored losses are of models that other code trained, with what to do; None where none are known to be."""
    evaluation = settings.evaluation
    current = trainer_hash(evaluation)
    if current is None or evaluation.ground_truth:
        return None
    trained = lake.read(SUBSET_LOSSES, ["subset", "seed", "trainer_hash"]).unique()
    others = trained.filter(trained["trainer_hash"] != current).height
    if not others:
        return None
    named = ", ".join(map(str, _files(evaluation)))
    return (
        f"{named} changed since {others} of {trained.height} models were retrained: where it trains otherwise now, change "
        "`evaluation.trainer_version`, and every model is retrained; results of both are mixed else"
    )


def _files(evaluation: EvaluationSettings) -> list[Path]:
    if evaluation.trainer:
        try:
            spec = importlib.util.find_spec(evaluation.trainer.partition(":")[0])
        except (ImportError, ValueError, AttributeError):
            return []
        named = [spec.origin] if spec and spec.origin else []
    else:
        named = list(evaluation.command)
    # A program that is found by its name alone is none of these.
    return [Path(name) for name in named if Path(name).is_file()]
