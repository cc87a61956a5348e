"""Read damaged files for some minutes, seeded, and say how many of each kind were survived: a part of `make fuzz`."""

import itertools
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.files import Valid, valid_files
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import ReaderProcess

_AT_A_TIME = 50


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="After these, no further files are drawn.")
@click.option("--seed", "first_seed", default=0, show_default=True, help="Of the files that are drawn.")
@click.option("--only", default="", help="A part of the names of the kinds of files to read.")
@click.option("--keep", type=click.Path(path_type=Path), help="A folder for files that were not survived.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write what was tried and found.")
def main(minutes: float, first_seed: int, only: str, keep: Path | None, output: Path | None) -> None:
    """Read damaged files, and end with 1 where one was neither read nor refused in words."""
    with tempfile.TemporaryDirectory() as scratch:
        valid = {name: one for name, one in valid_files(Path(scratch)).items() if only in name}
    reader, started = ReaderProcess(), time.monotonic()
    tried, faults = Counter[str](), dict[str, int]()
    for round_seed in itertools.count(first_seed):
        for name in valid:
            if time.monotonic() - started > 60 * minutes:
                break
            _read_some(name, valid, reader, round_seed, tried, faults, keep)
        else:
            continue
        break
    reader.end()
    for name, count in sorted(tried.items()):
        print(f"{count:>7}  {name}")
    spent = (time.monotonic() - started) / 60
    print(f"{tried.total():,} files of seed {first_seed} in {spent:.0f} min: {dict(reader.outcomes)}")
    for fault, count in faults.items():
        print(f"{count:>7}  {fault}")
    if output:
        about = {"seed": first_seed, "minutes": spent, "tried": tried, "outcomes": reader.outcomes, "faults": faults}
        output.write_text(json.dumps(about, indent=1))
    raise SystemExit(bool(faults))


def _read_some(
    name: str,
    valid: dict[str, Valid],
    reader: ReaderProcess,
    round_seed: int,
    tried: Counter[str],
    faults: dict[str, int],
    keep: Path | None,
) -> None:
    one, others = valid[name], [other.content for other in valid.values()]

    @seed(f"{round_seed} {name}")
    @settings(
        max_examples=_AT_A_TIME,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(one.content, others))
    def read(content: bytes) -> None:
        tried[name] += 1
        found = reader.fault(one.use, {**one.files, one.damaged: content})
        if found is None:
            return
        fault = f"{name}: {found}"
        if keep and fault not in faults:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{len(faults)}-{Path(one.damaged).name}").write_bytes(content)
            print(f"fault {len(faults)}: {fault}", flush=True)
        faults[fault] = faults.get(fault, 0) + 1

    read()


if __name__ == "__main__":
    main()
