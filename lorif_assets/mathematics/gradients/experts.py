"""Experts whose weights are fused in one parameter [experts, O, I] (or [experts, I, O]), and whose a product's rows are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_SHARE_OF_LONGEST = 0.75
"""Of the rows of a block's fullest example: an expert with fewer in all of its examples is in another block."""


@dataclass(frozen=True)
class FusedWeight:
    """One fused parameter: its path, the number of experts, each one's widths, and whether one is kept as [I, O]."""

    parameter: str
    """Its path in the module of the experts."""
    n_experts: int
    d_in: int
    d_out: int
    is_transposed: bool

    @property
    def name(self) -> str:
        """The last part of the parameter's path."""
        return self.parameter.rpartition(".")[2]

    def layer_name(self, experts: str, expert: int) -> str:
        """Return the name of one expert's layer, `experts` being the path of the module: `...experts.3.down_proj`."""
        return f"{experts}.{expert}" if self.name == "weight" else f"{experts}.{expert}.{self.name}"

    def of_experts(self, values: Tensor) -> Float[Tensor, "E a b"]:
        """Return the parameter's values, or its gradient, by expert.

        Some keep the experts' rows one below another, and some have rows for experts that are identities, too.
        """
        return values[: self.n_experts] if values.ndim == 3 else values.unflatten(0, (self.n_experts, -1))

    def values(self, experts: nn.Module) -> Float[Tensor, "E a b"]:
        """Return the weights by expert."""
        return self.of_experts(experts.get_parameter(self.parameter))


@dataclass(eq=False)
class Routing:
    """Which rows [S, I] of a product are whose: they are sorted by expert, then by token of the batch."""

    tokens: Int[Tensor, " S"]
    """Index of each row's token in the flattened batch [B * T]."""
    experts: Int[Tensor, " S"]
    n_experts: int
    _by_example: "tuple[Tensor, ExampleRows] | None" = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, experts: Int[Tensor, "N k"], n_experts: int) -> tuple["Routing", Int[Tensor, " S"]]:
        """Return the routing of N tokens to k experts each, and the order of its rows among the N * k."""
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        return cls(order // experts.shape[-1], chosen.index_select(0, order), n_experts), order

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each expert; a device is waited for, unless the rows were asked for by example before."""
        if self._by_example is not None:
            return self._by_example[1].sizes
        return tuple(torch.bincount(self.experts, minlength=self.n_experts).tolist())

    def leading(self, n_experts: int) -> "Routing":
        """Return the routing to the first experts alone."""
        end = sum(self.sizes[:n_experts])
        return Routing(self.tokens[:end], self.experts[:end], n_experts)

    def by_example(self, mask: Bool[Tensor, "B T"]) -> "ExampleRows":
        """Return the rows by example of the batch with this mask: found once, for all weights of a block."""
        if self._by_example is None or self._by_example[0] is not mask:
            is_token = mask.to(self.tokens.device).flatten().index_select(0, self.tokens)
            examples = self.tokens // mask.shape[1]
            self._by_example = mask, ExampleRows.of(self.experts, examples, is_token, self.n_experts, len(mask))
        return self._by_example[1]


@dataclass(frozen=True)
class ExpertBlock:
    """Experts whose rows are laid out alike: [experts, examples, longest, width], from a first row on."""

    experts: tuple[int, ...]
    start: int
    longest: int


@dataclass(frozen=True, eq=False)
class ExampleRows:
    """Rows that are sorted by expert, laid out expert by expert and example by example, without padding.

    An example with fewer rows of an expert than others is filled with zeros. Experts whose fullest examples have about as many
    rows are one block, so that one product takes them all.
    """

    n_examples: int
    sizes: tuple[int, ...]
    """Rows of each expert, those of padding too."""
    blocks: tuple[ExpertBlock, ...]
    """All experts with a row that is no padding."""
    experts: Int[Tensor, " S"]
    examples: Int[Tensor, " S"]
    is_token: Bool[Tensor, " S"]
    places: Int[Tensor, " S"]
    """Where the layout has each row; those of padding lie behind its end."""

    @classmethod
    def of(
        cls,
        experts: Int[Tensor, " S"],
        examples: Int[Tensor, " S"],
        is_token: Bool[Tensor, " S"],
        n_experts: int,
        n_examples: int,
    ) -> "ExampleRows":
        """Return the rows of which these are the experts and the examples, sorted by both, and which are no padding."""
        device, pairs = experts.device, experts * n_examples + examples
        counts = torch.zeros(n_experts * n_examples, dtype=torch.long, device=device)
        counts.index_add_(0, pairs, is_token.long())
        of_expert = torch.zeros(n_experts, dtype=torch.long, device=device)
        of_expert.index_add_(0, experts, torch.ones_like(experts))
        slots = is_token.cumsum(0) - 1 - (counts.cumsum(0) - counts)[pairs]
        longest, sizes = torch.stack([counts.view(n_experts, n_examples).amax(dim=1), of_expert]).tolist()
        blocks = _blocks(longest, n_examples)
        end = blocks[-1].start + len(blocks[-1].experts) * n_examples * blocks[-1].longest if blocks else 0
        first, stride = [end] * n_experts, [0] * n_experts
        for block in blocks:
            for place, expert in enumerate(block.experts):
                first[expert] = block.start + place * n_examples * block.longest
                stride[expert] = block.longest
        starts, strides = torch.tensor([first, stride], device=device)
        places = torch.where(is_token, starts[experts] + examples * strides[experts] + slots, end)
        return cls(n_examples, tuple(sizes), blocks, experts, examples, is_token, places)

    @property
    def end(self) -> int:
        """Rows of the layout."""
        last = self.blocks[-1] if self.blocks else ExpertBlock((), 0, 0)
        return last.start + len(last.experts) * self.n_examples * last.longest

    def filled(self, rows: Float[Tensor, "S w"]) -> Float[Tensor, "P w"]:
        """Return the rows in their layout."""
        laid_out = rows.new_zeros(self.end + 1, rows.shape[1])
        return laid_out.index_copy_(0, self.places, rows)[:-1]

    def of_block(self, laid_out: Float[Tensor, "P w"], block: ExpertBlock) -> Float[Tensor, "e B L w"]:
        """Return a block of what is laid out, as a view."""
        end = block.start + len(block.experts) * self.n_examples * block.longest
        return laid_out[block.start : end].view(len(block.experts), self.n_examples, block.longest, -1)

    def rows(self, laid_out: Float[Tensor, "P w"]) -> Float[Tensor, "S w"]:
        """Return the rows of a layout as they were before; those of padding are zero."""
        return torch.cat([laid_out, laid_out.new_zeros(1, laid_out.shape[1])]).index_select(0, self.places)

    def by_expert(self, rows: Float[Tensor, "S w"]) -> Sequence[Float[Tensor, "n w"]]:
        """Return the rows without padding, one tensor for each expert."""
        kept, sizes = self._tokens
        return torch.split(rows.index_select(0, kept), sizes)

    @cached_property
    def _tokens(self) -> tuple[Int[Tensor, " S"], list[int]]:
        """The rows that are no padding, and how many each expert has."""
        kept = self.is_token.nonzero().squeeze(1)
        return kept, torch.bincount(self.experts[kept], minlength=len(self.sizes)).tolist()


def _blocks(longest: Sequence[int], n_examples: int) -> tuple[ExpertBlock, ...]:
    """Return blocks of experts, by the most rows that an example has of each: at least so many of those of the first one."""
    blocks: list[ExpertBlock] = []
    start, waiting = 0, [expert for expert in sorted(range(len(longest)), key=lambda e: -longest[e]) if longest[expert]]
    while waiting:
        most = longest[waiting[0]]
        taken = [expert for expert in waiting if longest[expert] >= _SHARE_OF_LONGEST * most]
        blocks.append(ExpertBlock(tuple(taken), start, most))
        start += len(taken) * n_examples * most
        waiting = waiting[len(taken) :]
    return tuple(blocks)


RoutedProduct = Callable[[FusedWeight, Routing, Float[Tensor, "S I"], Callable[[], Float[Tensor, "S O"]]], Tensor]
"""Makes each product of a forward pass of experts: is given the weight, the routing, the inputs, and what multiplies them."""


def as_it_is(_weight: FusedWeight, _routing: Routing, _x: Tensor, multiply: Callable[[], Tensor]) -> Tensor:
    """Make a product and do nothing else."""
    return multiply()
