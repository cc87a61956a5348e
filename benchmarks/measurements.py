"""What all benchmarks share: interleaved timing, the machine they ran on, Markdown tables and JSON results."""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from placeholders import stand_in_for_missing_packages

# Benchmarks import this module before the project.
stand_in_for_missing_packages()

SettingT = TypeVar("SettingT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Seconds:
    """Time that some work took by the clock, and by the processor over all threads."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Seconds:
    """Return the time that some work takes. Other work on the machine lengthens the wall time, and CPU time little."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int, before: Mapping[str, Callable[[], object]] | None = None
) -> dict[str, Seconds]:
    """Run all works in turn, once unmeasured and then `repeats` times, and return the medians of each.

    `before` is what is done, unmeasured, each time before some of them.
    """
    for work in works.values():
        work()
    taken: dict[str, list[Seconds]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            (before or {}).get(name, _nothing)()
            taken[name].append(timed(work))
    return {name: Seconds(median(s.wall for s in all_), median(s.cpu for s in all_)) for name, all_ in taken.items()}


def synchronise(device: torch.device) -> None:
    """Wait for a device that works by itself."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device, work: Callable[[], object]) -> int:
    """Return the most bytes of a CUDA device that tensors took during some work; elsewhere 0."""
    if device.type != "cuda":
        work()
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return int(torch.cuda.max_memory_allocated(device))


def time_by_kind(device: torch.device, work: Callable[[], object], rows: int = 12) -> str:
    """Return a table of the operations that some work spends most of its time on, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as found:
        work()
        synchronise(device)
    order = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    return str(found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=40))


def _nothing() -> None:
    return None


def memory_of_this_process(kind: str) -> int:
    """Return a kind of memory that Linux tells of a process (`VmHWM`, `RssAnon`), in bytes; 0 on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def in_a_process(work: Callable[..., ResultT], *arguments: object) -> ResultT:
    """Return what some work returns in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def machine() -> dict[str, Any]:
    """Return what ran the benchmark: date, commit, processor, versions, and how busy the machine was at the time."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"card": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
    }


def markdown_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table.

    Args:
        columns: of each heading the format of its cells, for instance `{seconds:.3f}`, filled in by the row's fields.
        rows: fields by name.
    """
    lines = [list(columns), ["---:"] * len(columns)]
    lines += [[form.format(**row) for form in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting_and_output(setting: type[SettingT], description: str | None, name: str) -> tuple[SettingT, Path]:
    """Read a setting (a dataclass whose fields all have defaults) and the path of the JSON results from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for field in fields(setting):  # type: ignore[arg-type]
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            choices = field.metadata.get("choices")
            parser.add_argument(option, type=type(field.default), default=field.default, choices=choices)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / f"results/{name}.json")
    options = vars(parser.parse_args())
    output: Path = options.pop("output")
    return setting(**options), output


def report(output: Path, setting: object, results: object, table: str) -> None:
    """Write JSON, and print the setting, the machine and the table."""
    print(f"{setting}\n{write_results(output, setting, results)}\n\n{table}")


def write_results(output: Path, setting: object, results: object) -> dict[str, Any]:
    """Write JSON, and return the machine that is named there."""
    ran_on = machine()
    chosen = asdict(setting)  # type: ignore[call-overload]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"setting": chosen, **ran_on, "results": results}, indent=2) + "\n")
    return ran_on


def _commit() -> str:
    """Return the commit that ran, marked where files differ from it, or nothing outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if line.startswith("model name")] if cpus.is_file() else []
    return models[0].partition(":")[2].strip() if models else platform.processor()
