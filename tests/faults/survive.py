"""Hurt a project hundreds of times, seeded, and look after each time whether what is stored is sound: `make faults`."""

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from tests.conftest import write_tiny_project
from tests.faults.edits import random_edit
from tests.faults.hurt import Hurt, updated
from tests.faults.soundness import differences, unreadable

_OFTEN = [Hurt.KILL] * 7 + [Hurt.FULL, Hurt.CLOCK, Hurt.TRACKING]


def survive(root: Path, faults: int, seed: int, between: int) -> tuple[Counter[str], list[str]]:
    """Edit a project and hurt its update `faults` times; return what was tried, and what was found to be wrong.

    After each fault everything stored must be readable. After every `between` of them an update runs undisturbed, and
    what it leaves is compared with a new lake of the same data.
    """
    rng, tried, wrong = random.Random(seed), Counter[str](), list[str]()
    write_tiny_project(root)
    (root / "dagster").mkdir()
    (root / "dagster/dagster.yaml").write_text("telemetry: {enabled: false}\n")
    usual = _undisturbed(root, wrong, "the first update")
    for fault in range(1, faults + 1):
        edits = [random_edit(root, rng) for _ in range(rng.randint(1, 2))]
        hurt = rng.choice(_OFTEN)
        outcome = updated(root, hurt, rng, usual)
        tried[f"{hurt.value}: {'survived it' if outcome.code == 0 else 'ended by it'}"] += 1
        about = f"fault {fault} ({hurt.value} after {'; '.join(edits)})"
        wrong += [f"{about}: {found}" for found in unreadable(root)]
        if fault % between == 0 or fault == faults:
            _undisturbed(root, wrong, about)
            wrong += [f"{about}: {found}" for found in differences(root, root.with_name("rebuilt"))]
            print(f"{fault} of {faults} faults, {len(wrong)} wrong", flush=True)
    return tried, wrong


def _undisturbed(root: Path, wrong: list[str], about: str) -> float:
    (root / "update.log").unlink(missing_ok=True)
    outcome = updated(root, Hurt.NOTHING, random.Random(0), 0.0)
    if outcome.code != 0:
        wrong.append(
            f"{about}: the next update ended with {outcome.code}: {(root / 'update.log').read_text()[-2_000:]}"
        )
    return outcome.seconds


@click.command()
@click.option("--faults", default=500, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Of edits, kinds of faults and their moments.")
@click.option(
    "--between", default=25, show_default=True, help="Faults from one comparison with a new lake to the next."
)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write what was tried and found.")
def main(faults: int, seed: int, between: int, output: Path | None) -> None:
    """Hurt updates of a tiny project, and say what was not survived."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    root = folder / "project"
    root.mkdir()
    tried, wrong = survive(root, faults, seed, between)
    minutes = (time.monotonic() - started) / 60
    for what, count in sorted(tried.items()):
        print(f"{count:>5}  {what}")
    print(f"{faults} faults of seed {seed} in {minutes:.0f} min, {len(wrong)} wrong")
    if output:
        output.write_text(json.dumps({"seed": seed, "tried": tried, "wrong": wrong, "minutes": minutes}, indent=1))
    for found in wrong:
        print(found)
    if wrong:
        raise SystemExit(f"the project is kept in {root}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
