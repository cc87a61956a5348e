"""Mutants of a module: one operator, number or keyword of its code replaced by another, as cosmic-ray replaces them."""

import ast
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

Position = tuple[int, int]
"""A line, counted from 1, and a column, counted from 0."""


@dataclass(frozen=True)
class Mutant:
    """A place of a module, and which of cosmic-ray's operators changes it."""

    module: Path
    operator: str
    occurrence: int
    start: Position

    def source(self) -> str:
        """The module's code with the change made."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        mutated = mutate_code(self.module.read_text(), get_operator(self.operator)(), self.occurrence)
        assert mutated is not None
        return str(mutated)

    def __str__(self) -> str:
        before, after = (
            text.splitlines()[self.start[0] - 1].strip() for text in (self.module.read_text(), self.source())
        )
        return f"{self.module}:{self.start[0]}: {before}  ->  {after}"


def drawn(modules: Iterable[Path], count: int, seed: int) -> Sequence[Mutant]:
    """Draw so many mutants of some modules, each place and operator as likely as any other."""
    found = [mutant for module in modules for mutant in mutants(module)]
    return random.Random(seed).sample(found, min(count, len(found)))


def mutants(module: Path) -> Iterator[Mutant]:
    """Yield the mutants of a module, without those of annotations and decorators, which compute nothing."""
    import parso
    from cosmic_ray.ast import ast_nodes
    from cosmic_ray.plugins import get_operator, operator_names

    source = module.read_text()
    tree, declarations = parso.parse(source), list(_declarations(source))
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments():
            continue
        places = (place for node in ast_nodes(tree) for place in kind().mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            if not any(first <= start < last for first, last in declarations):
                yield Mutant(module, name, occurrence, start)


def _declarations(source: str) -> Iterator[tuple[Position, Position]]:
    for node in ast.walk(ast.parse(source)):
        parts = [
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", ()),
        ]
        for part in parts:
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)
