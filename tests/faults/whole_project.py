"""A tiny project with every asset that brings itself up to date, tracked by MLflow: what updates are hurt on."""

import json
from pathlib import Path

from lorif_assets import automation
from lorif_assets.demo.encoder import DemoEncoderConfig, make_encoder
from tests.conftest import tiny_tokenizer, write_tiny_project
from tests.faults.absent_tracking import DATABASE

_SVD = 'curvature = "svd"\nfactor_dtype = "bf16"\nrank = 1\n'
_EKFAC = 'curvature = "ekfac"\nfactor_dtype = "int8"\nrank = 2\nrank_by_layer = false\nkfac_examples = 20\n'
_MORE = """
[automation]
enabled = true
interval_seconds = 2

[token_scores]
enabled = true
top_k = 2

[exact_scores]
enabled = true
first = 3
examples = 16

[groups]
columns = ["topic"]
# The noise would be measured on more examples than there are.
shrunk = false

[influcoder]
enabled = true
encoder = "encoder"
encoder_length = 32
sketch_dim = 256
lora_rank = 4
anchors = 6
pool = 8
held_out_anchors = 3
held_out_pool = 4
epochs = 1
learning_rate = 1e-3
evaluation_seeds = [0]
"""

_MONITORING = "run_monitoring:\n  enabled: true\n"
# A run that was launched as the daemon was killed, and never started, keeps the others waiting for minutes otherwise.
_SOON = "  start_timeout_seconds: 10\n  poll_interval_seconds: 5\n"


def write_whole_project(root: Path) -> None:
    """Write a tiny project, tracked in a database beside its settings, and a home of Dagster in `dagster`."""
    root.mkdir()
    write_tiny_project(root)
    settings = (root / "lorif.toml").read_text()
    assert _SVD in settings
    assert 'uri = "none"' in settings
    settings = settings.replace(_SVD, _EKFAC).replace('uri = "none"', f'uri = "sqlite:///{root / DATABASE}"')
    (root / "lorif.toml").write_text(settings + _MORE)
    texts = [json.loads(line)["text"] for line in (root / "data/00000.jsonl").read_text().splitlines()]
    make_encoder(texts, tiny_tokenizer(), root / "encoder", DemoEncoderConfig(width=8))
    (root / "dagster").mkdir()
    home = Path(automation.__file__).with_name("dagster.yaml").read_text()
    assert _MONITORING in home
    (root / "dagster/dagster.yaml").write_text(home.replace(_MONITORING, _MONITORING + _SOON))
