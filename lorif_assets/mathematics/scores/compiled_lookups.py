"""Scores of packed signs by looked-up sums, in machine code: for few queries or few components.

A byte of signs p times eight rows of a matrix is one of 256 sums of those rows, looked up in a table. The sums of up to eight
bytes are added, multiplied by the signs q, and by the component's scale: all in FP32, and nothing goes through memory between
two of these steps.
"""

from collections.abc import Callable
from functools import cache

from lorif_assets.mathematics.scores.machine_code import compiled

MOST_BYTES = 8
"""Bytes of the signs p in a tile, at most: their tables, of 512 KiB, stay in a core's cache."""

Kernel = Callable[..., None]
"""Adds the scores of a tile: kernel(p, q, scales, table, scores, n, c, p_example, p_component, q_example, q_component).

p, q [n, c, bytes], scales [n, c], table [bytes, 256, columns] and scores [n] are addresses; p and q lie so many bytes apart
from one example, and from one component, to the next.
"""


@cache
def kernel(n_bytes: int, columns: int) -> Kernel:
    """Return the kernel of a tile.

    Args:
        n_bytes: of the signs p of a component, from 1 to 8.
        columns: of the table, and signs q of a component: 8, 16, 32 or 64.

    Raises:
        RuntimeError: LLVM cannot compile for this processor.
    """
    function: Kernel = compiled(_instructions(n_bytes, columns), "look_up", addresses=5, numbers=6)
    return function


def _instructions(n_bytes: int, columns: int) -> str:
    """Return the kernel in LLVM's own language, for vectors of `columns` numbers whatever the processor's are."""
    vector, signs = f"<{columns} x float>", f"<{columns} x i1>"
    return f"""
declare float @llvm.vector.reduce.fadd.v{columns}f32(float, {vector})

define void @look_up(ptr %p, ptr %q, ptr %scales, ptr %table, ptr %scores, i64 %n, i64 %c,
                        i64 %p_example, i64 %p_component, i64 %q_example, i64 %q_component) {{
entry:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %example

example:
  %i = phi i64 [ 0, %entry ], [ %next_i, %scored ]
  %p_offset = mul i64 %i, %p_example
  %p_i = getelementptr i8, ptr %p, i64 %p_offset
  %q_offset = mul i64 %i, %q_example
  %q_i = getelementptr i8, ptr %q, i64 %q_offset
  %scales_offset = mul i64 %i, %c
  %scales_i = getelementptr float, ptr %scales, i64 %scales_offset
  br label %component

component:
  %k = phi i64 [ 0, %example ], [ %next_k, %component ]
  %total = phi {vector} [ zeroinitializer, %example ], [ %next_total, %component ]
  %p_k_offset = mul i64 %k, %p_component
  %p_k = getelementptr i8, ptr %p_i, i64 %p_k_offset
  %q_k_offset = mul i64 %k, %q_component
  %q_k = getelementptr i8, ptr %q_i, i64 %q_k_offset
{_added_sums(n_bytes, columns)}
  %scale_k = getelementptr float, ptr %scales_i, i64 %k
  %plus = load float, ptr %scale_k
  %minus = fneg float %plus
  %plus_first = insertelement {vector} poison, float %plus, i64 0
  %plus_all = shufflevector {vector} %plus_first, {vector} poison, <{columns} x i32> zeroinitializer
  %minus_first = insertelement {vector} poison, float %minus, i64 0
  %minus_all = shufflevector {vector} %minus_first, {vector} poison, <{columns} x i32> zeroinitializer
  %bits = load i{columns}, ptr %q_k, align 1
  %is_plus = bitcast i{columns} %bits to {signs}
  %signed_scales = select {signs} %is_plus, {vector} %plus_all, {vector} %minus_all
  %product = fmul contract {vector} %sum, %signed_scales
  %next_total = fadd contract {vector} %total, %product
  %next_k = add i64 %k, 1
  %more_components = icmp ult i64 %next_k, %c
  br i1 %more_components, label %component, label %scored

scored:
  %score = call reassoc float @llvm.vector.reduce.fadd.v{columns}f32(float 0.0, {vector} %next_total)
  %scores_i = getelementptr float, ptr %scores, i64 %i
  %before = load float, ptr %scores_i
  %after = fadd float %before, %score
  store float %after, ptr %scores_i
  %next_i = add i64 %i, 1
  %more_examples = icmp ult i64 %next_i, %n
  br i1 %more_examples, label %example, label %done

done:
  ret void
}}
"""


def _added_sums(n_bytes: int, columns: int) -> str:
    """Return instructions that look up the sums of all bytes at %p_k and add them up, in pairs, to %sum."""
    vector, lines, waiting = f"<{columns} x float>", [], []
    for at in range(n_bytes):
        lines += [
            f"%p_byte_{at} = getelementptr i8, ptr %p_k, i64 {at}",
            f"%byte_{at} = load i8, ptr %p_byte_{at}",
            f"%row_{at} = zext i8 %byte_{at} to i64",
            f"%sum_at_{at} = getelementptr [256 x [{columns} x float]], ptr %table, i64 {at}, i64 %row_{at}",
            f"%sum_{at} = load {vector}, ptr %sum_at_{at}, align 4",
        ]
        waiting.append(f"%sum_{at}")
    while len(waiting) > 1:
        left, right, *others = waiting
        added = "%sum" if not others else f"%sums_{len(lines)}"
        lines.append(f"{added} = fadd {vector} {left}, {right}")
        waiting = [*others, added]
    if n_bytes == 1:
        lines.append(f"%sum = fadd {vector} %sum_0, zeroinitializer")
    return "\n".join(f"  {line}" for line in lines)
