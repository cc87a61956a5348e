"""EK-FAC (Grosse et al. 2023, arXiv 2308.03296) by the library kronfluence, an extra: the reference at full rank."""

import copy
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lorif_assets.config.methods import MethodName
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.scratch_folders import scratch_folder

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokens.tokenization import TokenizedExample

_NAME = MethodName.EKFAC.value
_MOST_QUERY_NUMBERS = (2 << 30) // 4


def require_kronfluence() -> None:
    """Refuse to go on without the library.

    Raises:
        SettingsError: it is not installed.
    """
    if find_spec("kronfluence") is None:
        extra = MethodName.EKFAC.definition.extra
        raise SettingsError(
            "the method `ekfac` of `evaluation.methods` needs the library kronfluence, which is not installed; install the "
            f"extra `{extra}`: pip install 'lorif-assets[{extra}]', or take `ekfac` out of `evaluation.methods` and "
            "`evaluation.removal_methods`"
        )


def ekfac_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by EK-FAC on the weights of LoRIF's layers, without projection, with the data's own labels.

    Factors are fitted to all training examples; damping is kronfluence's rule, 0.1 of a layer's mean eigenvalue.

    Raises:
        SettingsError: kronfluence is not installed, or steps take several devices.
    """
    if len(inputs.attributed.devices) > 1:
        raise SettingsError(
            f"the method `ekfac` of `evaluation.methods` needs the whole checkpoint on one device, but steps take "
            f"{inputs.attributed.devices} together; take `ekfac` out of `evaluation.methods` and "
            "`evaluation.removal_methods`, or set "
            "`devices.per_checkpoint = 1`"
        )
    require_kronfluence()
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.utils.dataset import DataLoaderKwargs

    from lorif_assets.mathematics.gradients.head import head_of

    layers = list(inputs.attributed.record.layer_shapes)
    model, tracked = with_plain_linear_layers(inputs.attributed.model, layers)
    sizes = [sum(weight.numel() for weight in model.get_submodule(name).parameters()) for name in tracked]
    examples, queries = list(inputs.examples.tokenized), list(inputs.queries.tokenized)
    # Where the model is cut is found out here: the library's hooks would take that for a pass over an example.
    head = head_of(model)
    is_head_tracked = head is not None and any(map(head.holds, tracked))
    task = _language_modelling(tracked, whole_logits=is_head_tracked)
    loading = DataLoaderKwargs(collate_fn=_padded)
    fitted = FactorArguments(
        strategy="ekfac",
        use_empirical_fisher=True,
        covariance_max_examples=None,
        lambda_max_examples=None,
    )
    rows, query_rows = (_rows_of_a_batch(inputs, chosen, max(sizes)) for chosen in (examples, queries))
    with scratch_folder() as folder:
        analyzer = Analyzer(
            _NAME,
            prepare_model(model, task),
            task,
            cpu=inputs.attributed.device.type == "cpu",
            disable_tqdm=True,
            output_dir=str(folder),
        )
        analyzer.set_dataloader_kwargs(loading)
        started = time.monotonic()
        analyzer.fit_all_factors(_NAME, examples, per_device_batch_size=rows, factor_args=fitted)
        setup_seconds = time.monotonic() - started
        started = time.monotonic()
        analyzer.compute_pairwise_scores(
            _NAME,
            _NAME,
            queries,
            examples,
            # Each batch of queries takes a pass over the training data, with the queries' gradients in memory.
            per_device_query_batch_size=max(1, min(query_rows, _MOST_QUERY_NUMBERS // sum(sizes))),
            per_device_train_batch_size=rows,
            score_args=ScoreArguments(damping_factor=None),
        )
        query_seconds = time.monotonic() - started
        scores = analyzer.load_pairwise_scores(_NAME)["all_modules"].float().numpy()
    # Nothing is kept of an example; its gradients are computed again for each query set.
    return {"ekfac": MethodScores(scores, 0.0, setup_seconds, query_seconds)}


def with_plain_linear_layers(model: "torch.nn.Module", layers: Sequence[str]) -> "tuple[torch.nn.Module, list[str]]":
    """Return an FP32 copy of a model, and the names of its modules that hold only the layers' weights.

    kronfluence tracks `nn.Linear`, not GPT-2's `Conv1D`, and treats a bias as one more input; here, as in all methods,
    only the weight is tracked. So each layer becomes an `nn.Linear` without bias, followed by its bias.
    """
    import torch

    class Biased(torch.nn.Module):
        def __init__(self, weight: torch.nn.Parameter, bias: torch.nn.Parameter | None) -> None:
            super().__init__()
            d_out, d_in = weight.shape
            self.linear = torch.nn.Linear(d_in, d_out, bias=False, device="meta")
            self.linear.weight = weight
            self.bias = bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.linear(x)
            return y if self.bias is None else y + self.bias

    copied = copy.deepcopy(model).float()
    for name in layers:
        layer: Any = copied.get_submodule(name)
        weight = layer.weight
        if not isinstance(layer, torch.nn.Linear):
            weight = torch.nn.Parameter(weight.detach().mT.contiguous())
        copied.set_submodule(name, Biased(weight, layer.bias))
    return copied, [f"{name}.linear" for name in layers]


def _rows_of_a_batch(inputs: MethodInputs, examples: "Sequence[TokenizedExample]", largest: int) -> int:
    """Return how many examples fit both budgets: that of tokens, and that of the largest layer's gradients."""
    batch, longest = inputs.settings.batch, max(len(example.input_ids) for example in examples)
    return max(1, min(batch.tokens // longest, batch.gradient_numbers // largest))


def _padded(examples: "Sequence[TokenizedExample]") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Return token ids, attention mask and labels [B, T]: kronfluence moves only plain tensors to a device."""
    from lorif_assets.mathematics.gradients.batching import pad_right

    batch = pad_right([example.input_ids for example in examples], [example.labels for example in examples])
    return batch.input_ids, batch.attention_mask.long(), batch.labels


def _language_modelling(tracked: list[str], *, whole_logits: bool) -> Any:
    """Return kronfluence's description of what is differentiated: token-summed losses, of examples and of queries.

    With whole logits, those of a batch are made at once: the library's hooks see one call of a tracked head, not a call for
    each chunk of its tokens.
    """
    from kronfluence.task import Task

    from lorif_assets.mathematics.gradients.head import losses_with_graph
    from lorif_assets.mathematics.gradients.token_losses import next_tokens, summed_cross_entropies

    class LanguageModelling(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            # `sample` is never set: factors are fitted with the data's own labels.
            del sample
            input_ids, mask, labels = batch
            inputs = {"input_ids": input_ids, "attention_mask": mask, "use_cache": False}
            if whole_logits:
                return summed_cross_entropies(model(**inputs).logits, next_tokens(labels)).sum()
            return losses_with_graph(model, inputs, labels).sum()

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            # A loss, as for training examples: both gradients point the same way if an example supports a query.
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return tracked

        def get_attention_mask(self, batch: Any) -> Any:
            return batch[1]

    return LanguageModelling()
