"""Every figure of an accelerator in one run of at most eight minutes: factors beside their floor, and scans beside a raw read.

Each shape runs in a process of its own, so that one that does not fit leaves the others; what does not end in its share of the
time is stopped and listed as such. The results are one JSON file, with the card and the commit.

A machine that is lent for its card may have no more than torch, transformers, pyarrow, jaxtyping and pydantic: other packages
have placeholders, and scans read plain files, which `--files lake` changes.

    python benchmarks/gpu_table.py --device cuda:0 --peak-tflops 790
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measurements import setting_and_output, write_results

HERE = Path(__file__).parent
GPT2 = {"architecture": "gpt2", "blocks": 12, "width": 768, "heads": 12, "vocabulary": 50_304, "examples": 128}
LLAMA = {"architecture": "llama", "blocks": 24, "width": 2_048, "heads": 16, "vocabulary": 32_000, "examples": 64}
LARGE = {"architecture": "llama", "blocks": 32, "width": 4_096, "heads": 32, "vocabulary": 32_000, "examples": 16}
SHARED = {"projection_factor": 8, "shortest": 1.0, "repeats": 2, "threads": 8, "recipes": "default paper"}
TF32 = {"tf32": True, "recipes": "default"}
SCAN = {"codecs": "sign bf16", "queries": "1 10 100", "repeats": 2, "threads": 4, "scan_rows": 0, "shards": 4}
SMALLEST: dict[str, dict[str, Any]] = {
    "factor_throughput": {
        **{"blocks": 1, "width": 16, "heads": 2, "vocabulary": 32, "tokens": 16, "examples": 4, "batch_tokens": 64},
        **{"bytes_per_example": 400, "projection_factor": 2, "repeats": 1},
    },
    "scan_rate": {"examples": 64, "width": 16, "repeats": 1, "codecs": "sign", "ranks": "1", "queries": "1"},
}


@dataclass(frozen=True)
class Setting:
    """Which device, what it can do at most in BF16, and how long all of it may take."""

    device: str = "cuda:0"
    peak_tflops: float = 0.0
    minutes: float = 8.0
    files: str = field(default="plain", metadata={"choices": ("lake", "plain")})
    smallest: bool = False
    """Whether shapes are cut to what any processor runs in seconds, which measures nothing."""


def runs(setting: Setting) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what is run: a name, the benchmark and its options."""
    factors = {**SHARED, "device": setting.device, "peak_tflops": setting.peak_tflops}
    scans = {**SCAN, "device": setting.device, "files": setting.files}
    short, long = {"tokens": 512, "batch_tokens": 16_384}, {"tokens": 2_048, "batch_tokens": 16_384}
    many = {**short, "batch_tokens": 32_768}
    shapes = [
        ("GPT-2, 124 M, BF16", {**GPT2, **many, "dtype": "bfloat16"}),
        ("Llama, 1.5 B, BF16", {**LLAMA, **short, "dtype": "bfloat16"}),
        ("Llama, 6.7 B, BF16", {**LARGE, **long, "batch_tokens": 8_192, "dtype": "bfloat16", "recipes": "default"}),
        ("GPT-2, 124 M, BF16, TF32 for factors", {**GPT2, **many, **TF32, "dtype": "bfloat16"}),
        ("Llama, 1.5 B, BF16, TF32 for factors", {**LLAMA, **short, **TF32, "dtype": "bfloat16"}),
        ("GPT-2, 124 M, FP32 by TF32", {**GPT2, **many, **TF32, "dtype": "float32", "examples": 64}),
    ]
    planned = [
        *((name, "factor_throughput", {**factors, **shape}) for name, shape in shapes),
        (
            "scan, a Llama block of 256",
            "scan_rate",
            {**scans, "architecture": "llama", "examples": 16_384, "width": 256, "ranks": "16", "codecs": "sign"},
        ),
        ("scan, one GPT-2 block of 64", "scan_rate", {**scans, "examples": 65_536, "width": 64, "ranks": "8"}),
    ]
    if not setting.smallest:
        return planned
    return [(name, benchmark, options | SMALLEST[benchmark]) for name, benchmark, options in planned]


def measured(name: str, benchmark: str, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run a benchmark, and return its results, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "results.json")
        given = [text for option, value in options.items() for text in _as_option(option, value)]
        command = [sys.executable, str(HERE / f"{benchmark}.py"), *given, "--output", str(output)]
        row: dict[str, Any] = {"name": name, "benchmark": benchmark, "options": options}
        if seconds <= 0:
            return row | {"failed": "no time was left"}
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return row | {"failed": f"took longer than the {seconds:.0f} s that were left for it"}
        except subprocess.CalledProcessError as error:
            return row | {"failed": error.stderr.strip().splitlines()[-1] if error.stderr.strip() else str(error)}
        return row | {"results": json.loads(output.read_text())["results"]}


def _as_option(name: str, value: object) -> tuple[str, ...]:
    option = f"--{name.replace('_', '-')}"
    return (option,) if value is True else (option, str(value))


def shown(row: dict[str, Any]) -> str:
    """Return the lines of one run: the whole of each recipe, or of each scan."""
    if "failed" in row:
        return f"{row['name']}: {row['failed']}"
    if row["benchmark"] == "scan_rate":
        lines = [
            f"{one['codec']} c = {one['c']} Q = {one['queries']}: {one['mb_per_second']:,.0f} MB/s, "
            f"{one['share_of_raw_wall']:.2f} of a raw read"
            for one in row["results"]
        ]
    else:
        lines = [
            f"{one['recipe']}: {one['tokens_per_second']:,.0f} tokens/s, {one['share_of_floor_wall']:.2f} of the floor, "
            f"MFU {one['mfu']:.2f}, {one['peak_device_mib']:,.0f} MiB"
            for one in row["results"]
            if one["part"] == "whole"
        ]
    return "\n".join([f"{row['name']}:", *(f"  {line}" for line in lines)])


def main() -> None:
    """Run the table, print it, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "gpu_table")
    end, rows = time.monotonic() + 60 * setting.minutes, []
    planned = runs(setting)
    for at, (name, benchmark, options) in enumerate(planned):
        # Twice an equal share of what is left: short runs leave time for long ones.
        left = end - time.monotonic()
        rows.append(measured(name, benchmark, options, min(left, 2 * left / (len(planned) - at))))
        print(shown(rows[-1]), flush=True)
        # What is stopped leaves what it has.
        write_results(output, setting, rows)


if __name__ == "__main__":
    main()
