"""Hurt a project hundreds of times, seeded, and look after each time whether what is stored is sound: `make faults`."""

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from tests.faults.edits import random_edit
from tests.faults.hurt import Hurt, updated
from tests.faults.soundness import differences, unreadable
from tests.faults.whole_project import write_whole_project

_EDITED_SHARE = 0.1
_OFTEN = [Hurt.KILL] * 14 + [Hurt.DAEMON, Hurt.FULL, Hurt.READ_ONLY, Hurt.CLOCK, Hurt.TRACKING, Hurt.EDITED]


def survive(
    root: Path, faults: int, seed: int, between: int, kinds: Sequence[Hurt] = _OFTEN
) -> tuple[Counter[str], list[str]]:
    """Edit a project and hurt its update `faults` times; return what was tried, and what was found to be wrong.

    After each fault everything stored must be readable. After every `between` of them an update runs undisturbed, and
    what it leaves is compared with a new lake of the same data, and with what Dagster and MLflow tell of it.
    """
    rng, tried, wrong = random.Random(seed), Counter[str](), list[str]()
    write_whole_project(root)
    _undisturbed(root, wrong, "the first update")
    is_up_to_date = True
    for fault in range(1, faults + 1):
        # Without an edit the next update goes on where the last one ended, so that each asset has its turn.
        edits = [random_edit(root, rng)] if is_up_to_date or rng.random() < _EDITED_SHARE else []
        hurt = rng.choice(kinds)
        outcome = updated(root, hurt, rng, partial(_edit_too, root, rng, edits))
        is_up_to_date = outcome.code == 0 and hurt is not Hurt.EDITED
        during = f" during {outcome.begun[-1]}" if outcome.code < 0 and outcome.begun else ""
        tried[f"{hurt.value}{during}: {'survived it' if outcome.code == 0 else 'ended by it'}"] += 1
        about = f"fault {fault} ({hurt.value}{during}{' after ' * bool(edits)}{'; '.join(edits)})"
        wrong += [f"{about}: {found}" for found in unreadable(root)]
        if fault % between == 0 or fault == faults:
            _undisturbed(root, wrong, about)
            wrong += [f"{about}: {found}" for found in differences(root, root.with_name("rebuilt"))]
            is_up_to_date = True
            print(f"{fault} of {faults} faults, {len(wrong)} wrong", flush=True)
    return tried, wrong


def _edit_too(root: Path, rng: random.Random, edits: list[str]) -> None:
    edits.append(random_edit(root, rng))


def _undisturbed(root: Path, wrong: list[str], about: str) -> None:
    (root / "update.log").unlink(missing_ok=True)
    code = updated(root, Hurt.NOTHING, random.Random(0)).code
    if code != 0:
        wrong.append(f"{about}: the next update ended with {code}: {(root / 'update.log').read_text()[-2_000:]}")


@click.command()
@click.option("--faults", default=500, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Of edits, kinds of faults and their moments.")
@click.option(
    "--between", default=25, show_default=True, help="Faults from one comparison with a new lake to the next."
)
@click.option(
    "--kind",
    type=click.Choice([hurt.value for hurt in Hurt][1:]),
    help="Only faults of one kind; default: all of them.",
)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write what was tried and found.")
def main(faults: int, seed: int, between: int, kind: str | None, output: Path | None) -> None:
    """Hurt updates of a tiny project, and say what was not survived."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    root = folder / "project"
    tried, wrong = survive(root, faults, seed, between, [Hurt(kind)] if kind else _OFTEN)
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
