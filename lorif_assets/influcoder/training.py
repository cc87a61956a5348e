"""Training the bi-encoder on stored targets. Imported inside steps only."""

from collections.abc import Sequence

import torch

from lorif_assets.config.settings import Settings
from lorif_assets.influcoder.encoder import TextEncoder
from lorif_assets.influcoder.encoder_places import encoder_folder
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredTargets
from lorif_assets.mathematics.influcoder.distillation import DistillationConfig, StepLoss, distil


def load_base(settings: Settings, device: torch.device) -> TextEncoder:
    """Load the encoder that the settings name, a folder relative to lorif.toml or a model on the hub, with its heads.

    Raises:
        SettingsError: it cannot be loaded.
    """
    folder = encoder_folder(settings, settings.influcoder.encoder, "influcoder.encoder")
    encoder = TextEncoder.load(folder, settings.influcoder.encoder_length, device)
    return encoder.with_heads(True) if settings.influcoder.heads else encoder


def train_encoder(
    encoder: TextEncoder,
    targets: StoredTargets,
    anchors: Sequence[int],
    pool: Sequence[int],
    config: DistillationConfig,
) -> list[StepLoss]:
    """Distil the influences between some anchors and pool texts into the encoder, in place, and return each step's loss."""
    with torch.random.fork_rng(devices=[encoder.model.device] if encoder.model.device.type == "cuda" else []):
        # For dropout, if the encoder has any.
        torch.manual_seed(config.seed)
        encoder.model.train()
        losses = list(
            distil(
                encoder.parameters,
                lambda rows: encoder.forward([targets.anchors[anchors[row]] for row in rows], Role.ANCHOR),
                lambda columns: encoder.forward([targets.pool[pool[column]] for column in columns], Role.POOL),
                targets.matrix[list(anchors)][:, list(pool)],
                config,
            )
        )
        encoder.model.eval()
    return losses
