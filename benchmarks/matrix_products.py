"""FP32 matrix products of this processor: torch's own choice of library beside oneDNN, which the project takes on AMD's.

Shapes are those of a small model's layers, of its projections, and of scores. Rates are of CPU seconds, of one thread.
"""

from dataclasses import dataclass
from typing import Any

import torch
from measurements import interleaved, markdown_table, report, setting_and_output

from lorif_assets.mathematics.matrix_products import onednn_linear

TORCH, ONEDNN = "torch", "oneDNN"
SHAPES = {
    "linear layer": (2_048, 768, 3_072),
    "LM head": (512, 768, 50_257),
    "projection": (2_048, 3_072, 384),
    "rank-one scores, Q = 10": (1_024, 64, 640),
    "dense scores, Q = 100": (100, 12_288, 1_024),
    "too small for oneDNN": (64, 64, 64),
}


@dataclass(frozen=True)
class Setting:
    """How long is measured."""

    gigaflops: float = 4.0
    repeats: int = 5
    threads: int = 1


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time both libraries in turn, and return a row for each shape."""
    rows = []
    for name, (m, k, n) in SHAPES.items():
        a, b = torch.randn(m, k), torch.randn(k, n)
        times = max(1, round(setting.gigaflops * 1e9 / (2 * m * k * n)))

        def by_torch(a: torch.Tensor = a, b: torch.Tensor = b, times: int = times) -> None:
            for _ in range(times):
                a @ b

        def by_onednn(a: torch.Tensor = a, b: torch.Tensor = b, times: int = times) -> None:
            for _ in range(times):
                onednn_linear(a, b.mT, None)

        taken = interleaved({TORCH: by_torch, ONEDNN: by_onednn}, setting.repeats)
        exact = a.double() @ b.double()
        rates = {library: times * 2 * m * k * n / seconds.cpu / 1e9 for library, seconds in taken.items()}
        rows.append(
            {
                "product": name,
                "shape": f"{m:,} x {k:,} x {n:,}",
                "torch_gflops": rates[TORCH],
                "onednn_gflops": rates[ONEDNN],
                "ratio": rates[ONEDNN] / rates[TORCH],
                "torch_error": float((a @ b - exact).abs().max() / exact.abs().max()),
                "onednn_error": float((onednn_linear(a, b.mT, None) - exact).abs().max() / exact.abs().max()),
            }
        )
    return rows


COLUMNS = {
    "product": "{product}",
    "m x k x n": "{shape}",
    "torch, GFLOP/s": "{torch_gflops:.0f}",
    "oneDNN, GFLOP/s": "{onednn_gflops:.0f}",
    "ratio": "{ratio:.2f}",
    "torch's error": "{torch_error:.0e}",
    "oneDNN's": "{onednn_error:.0e}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "matrix_products")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
