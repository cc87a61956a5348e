"""How many mutants of the mathematics do its tests notice? A sample, drawn by a seed: `make mutants`."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import click

from tests.mutants.mutations import drawn
from tests.mutants.trial import notice

_MATHEMATICS = Path("lorif_assets/mathematics")
_TESTS = Path("tests/mathematics")
_PARTS = ("scores", "factors", "evaluation")
_MOST_FILES = 4
_CPU_SECONDS = 300


@click.command()
@click.option("--count", default=200, show_default=True, help="How many mutants.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--minutes", type=float, help="After these, no further mutant is tried.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write what was tried and found.")
def main(count: int, seed: int, minutes: float | None, output: Path | None) -> None:
    """Say which mutants no test notices."""
    import hypothesis
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    # Everybody draws the same examples, as in all other runs of the tests.
    hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("fixed")
    modules = [file for part in _PARTS for file in sorted((_MATHEMATICS / part).glob("[!_]*.py"))]
    started, survivors, tried, sound = time.monotonic(), list[str](), 0, dict[Path, bool]()
    for mutant in drawn(modules, count, seed):
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        module = mutant.module
        if module not in sound:
            sound[module] = not _noticed(module, module.read_text())
            if not sound[module]:
                raise SystemExit(f"the tests of {module} fail without a mutant: {_tests_of(module)}")
        tried += 1
        if not _noticed(module, mutant.source()):
            survivors.append(f"{mutant} ({mutant.operator})")
            print(survivors[-1], flush=True)
        _write(output, seed, tried, survivors, time.monotonic() - started)
    print(f"{tried - len(survivors)} of {tried} mutants of seed {seed} noticed")


def _noticed(module: Path, source: str) -> bool:
    return notice(_tests_of(module), ".".join(module.with_suffix("").parts), module, source, _CPU_SECONDS)


def _tests_of(module: Path) -> Sequence[Path]:
    """Return the tests that import a module, those of its own part first; where there are none, those of its importers."""
    tests = {file: file.read_text() for file in sorted(_TESTS.rglob("test_*.py"))}
    sources = {file: file.read_text() for file in sorted(_MATHEMATICS.rglob("[!_]*.py"))}
    modules, found = {module}, list[Path]()
    while not found and modules:
        found = [file for file, text in tests.items() if any(_imports(text, one) for one in modules)]
        modules = {file for file, text in sources.items() if any(_imports(text, one) for one in modules)} - modules
    if not found:
        raise SystemExit(f"no test of {_TESTS} imports {module}, nor a module that does")
    return sorted(found, key=lambda file: (file.parent.name != module.parent.name, "curvature" in file.parts))[
        :_MOST_FILES
    ]


def _imports(text: str, module: Path) -> bool:
    *package, name = module.with_suffix("").parts
    inside = ".".join(package)
    return f"{inside}.{name} import" in text or bool(
        re.search(rf"^from {re.escape(inside)} import .*\b{re.escape(name)}\b", text, re.MULTILINE)
    )


def _write(output: Path | None, seed: int, tried: int, survivors: list[str], seconds: float) -> None:
    if output:
        about = {"seed": seed, "tried": tried, "survivors": survivors, "minutes": seconds / 60}
        output.write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
