"""Scores of packed signs by rebuilding each gradient, row by row, in machine code: for several queries and many components.

Row i of a gradient is the sum of its components' signed q, with the signs p_i. The 16 sums of every four components are
made once for an example; a row is then a sum of one of each. A rebuilt row stays in registers while it is multiplied with
the same row of several queries, whatever the number of components.
"""

from collections.abc import Callable
from functools import cache

from lorif_assets.mathematics.scores.machine_code import compiled, has_wide_registers

MOST_BYTES = 16
"""Bytes of the signs p in a tile, at most: more rows repay the sums, fewer leave room for the queries in a core's cache."""
_COMPONENTS = 4
"""Components whose sums are in one table."""

Kernel = Callable[..., None]
"""Adds a tile's scores:
kernel(p, q, scales, matrices, scores, n, c, n_bytes, p_example, p_component, q_example, q_component, scores_query).

p [n, c, n_bytes], q [n, c, columns / 8], scales [n, c], matrices [8 * n_bytes, queries, columns] and scores [queries, n] are
addresses. p and q lie so many bytes apart from one example, and from one component, to the next; scores so many numbers from
one query to the next.
"""

_CACHED_TABLES = 2
"""Tables of an example of which a core's fastest cache holds those of four examples."""


def most_queries(tables: int) -> int:
    """Return for how many queries there are registers beside so many tables of an example."""
    return (20 if has_wide_registers() else 8) // _examples(tables)


def _examples(tables: int) -> int:
    """Return how many examples' rows are in registers together: a number of a query is loaded once for all of them."""
    return 4 if tables <= _CACHED_TABLES else 2


@cache
def kernel(columns: int, tables: int, queries: int) -> Kernel:
    """Return the kernel of a tile.

    Args:
        columns: of the queries, and signs q of a component: 8, 16, 32 or 64.
        tables: of four components each, enough for all of them.
        queries: that are scored, no more than `most_queries`.

    Raises:
        RuntimeError: LLVM cannot compile for this processor.
    """
    lanes = min(columns, 16 if has_wide_registers() else 8)
    instructions = _instructions(columns, tables, queries, lanes)
    function: Kernel = compiled(instructions, "rebuild", addresses=5, numbers=8)
    return function


def _instructions(columns: int, tables: int, queries: int, lanes: int) -> str:
    """Return the kernel in LLVM's own language, which multiplies so many numbers at a time."""
    vector, examples = f"<{lanes} x float>", range(_examples(tables))
    components = range(_COMPONENTS * tables)
    # Beyond the last component its address is read again, with the scale 0.
    places = "\n".join(
        f"""  %is_there_{k} = icmp ult i64 {k}, %c
  %at_{k} = select i1 %is_there_{k}, i64 {k}, i64 %last_component"""
        for k in components
    )
    made = "\n".join(_table(e, table, columns, e * tables + table) for e in examples for table in range(tables))
    sums = [(example, query) for example in examples for query in range(queries)]
    of_rows = "\n".join(
        f"  %total_{e}_{z} = phi {vector} [ zeroinitializer, %made ], [ %next_{e}_{z}, %turned ]" for e, z in sums
    )
    of_row = "\n".join(
        f"  %sum_{e}_{z} = phi {vector} [ %total_{e}_{z}, %turning ], [ %next_{e}_{z}, %row ]" for e, z in sums
    )
    kept = "\n".join(
        f"""  %score_{e}_{z} = call reassoc float @llvm.vector.reduce.fadd.v{lanes}f32(float 0.0, {vector} %next_{e}_{z})
  %query_{e}_{z} = mul i64 {z}, %scores_query
  %at_{e}_{z} = add i64 %query_{e}_{z}, %i_{e}
  %place_{e}_{z} = getelementptr float, ptr %scores, i64 %at_{e}_{z}
  %before_{e}_{z} = load float, ptr %place_{e}_{z}
  %counted_{e}_{z} = select i1 %counts_{e}, float %score_{e}_{z}, float 0.0
  %after_{e}_{z} = fadd float %before_{e}_{z}, %counted_{e}_{z}
  store float %after_{e}_{z}, ptr %place_{e}_{z}"""
        for e, z in sums
    )
    return f"""
declare float @llvm.vector.reduce.fadd.v{lanes}f32(float, {vector})

define void @rebuild(ptr %p, ptr %q, ptr %scales, ptr %matrices, ptr %scores, i64 %n, i64 %c, i64 %n_bytes,
                    i64 %p_example, i64 %p_component, i64 %q_example, i64 %q_component, i64 %scores_query) {{
entry:
  %tables = alloca [{len(examples) * tables} x [16 x [{columns} x float]]], align 64
  %last_component = sub i64 %c, 1
{places}
  %none = icmp eq i64 %n, 0
  br i1 %none, label %done, label %group

group:
  %i = phi i64 [ 0, %entry ], [ %next_i, %kept ]
{_addresses(examples)}
{made}
  br label %made

made:
  br label %turning

turning:
  %b = phi i64 [ 0, %made ], [ %next_b, %turned ]
{of_rows}
{_turned_bits(tables)}
  br label %row

row:
  %j = phi i64 [ 0, %turning ], [ %next_j, %row ]
{of_row}
{_multiplied_row(columns, tables, queries, lanes)}
  %next_j = add i64 %j, 1
  %more_rows = icmp ult i64 %next_j, 8
  br i1 %more_rows, label %row, label %turned

turned:
  %next_b = add i64 %b, 1
  %more_bytes = icmp ult i64 %next_b, %n_bytes
  br i1 %more_bytes, label %turning, label %kept

kept:
{kept}
  %next_i = add i64 %i, {len(examples)}
  %more = icmp ult i64 %next_i, %n
  br i1 %more, label %group, label %done

done:
  ret void
}}
"""


def _addresses(examples: range) -> str:
    """Return instructions that find the signs and scales of neighbours; the first stands for those beyond the last."""
    return "\n".join(
        f"""  %beside_{e} = add i64 %i, {e}
  %counts_{e} = icmp ult i64 %beside_{e}, %n
  %i_{e} = select i1 %counts_{e}, i64 %beside_{e}, i64 %i
  %p_offset_{e} = mul i64 %i_{e}, %p_example
  %p_{e} = getelementptr i8, ptr %p, i64 %p_offset_{e}
  %q_offset_{e} = mul i64 %i_{e}, %q_example
  %q_{e} = getelementptr i8, ptr %q, i64 %q_offset_{e}
  %scales_offset_{e} = mul i64 %i_{e}, %c
  %scales_{e} = getelementptr float, ptr %scales, i64 %scales_offset_{e}"""
        for e in examples
    )


def _table(e: int, table: int, columns: int, place: int) -> str:
    """Return instructions that make the 16 sums of four components' signed q, the first component's sign varying fastest."""
    vector, lines, sums = f"<{columns} x float>", [], [f"<{columns} x float> zeroinitializer"]
    for k in range(_COMPONENTS * table, _COMPONENTS * (table + 1)):
        at = f"{e}_{k}"
        lines += [
            f"%scale_place_{at} = getelementptr float, ptr %scales_{e}, i64 %at_{k}",
            f"%stored_scale_{at} = load float, ptr %scale_place_{at}",
            f"%plus_{at} = select i1 %is_there_{k}, float %stored_scale_{at}, float 0.0",
            f"%minus_{at} = fneg float %plus_{at}",
            *(
                line
                for side in ("plus", "minus")
                for line in (
                    f"%{side}_first_{at} = insertelement {vector} poison, float %{side}_{at}, i64 0",
                    f"%{side}_all_{at} = shufflevector {vector} %{side}_first_{at}, {vector} poison, "
                    f"<{columns} x i32> zeroinitializer",
                )
            ),
            f"%q_k_offset_{at} = mul i64 %at_{k}, %q_component",
            f"%q_k_{at} = getelementptr i8, ptr %q_{e}, i64 %q_k_offset_{at}",
            f"%q_bits_{at} = load i{columns}, ptr %q_k_{at}, align 1",
            f"%q_signs_{at} = bitcast i{columns} %q_bits_{at} to <{columns} x i1>",
            f"%signed_{at} = select <{columns} x i1> %q_signs_{at}, {vector} %plus_all_{at}, {vector} %minus_all_{at}",
        ]
        next_sums: list[str] = []
        for operation in ("fsub", "fadd"):
            for sum_before in sums:
                name = f"%made_{at}_{len(next_sums)}"
                lines.append(f"{name} = {operation} {sum_before}, %signed_{at}")
                next_sums.append(f"{vector} {name}")
        sums = next_sums
    for value, made in enumerate(sums):
        lines += [
            f"%slot_{e}_{table}_{value} = getelementptr [16 x [{columns} x float]], ptr %tables, i64 {place}, i64 {value}",
            f"store {made}, ptr %slot_{e}_{table}_{value}, align 64",
        ]
    return "\n".join(f"  {line}" for line in lines)


def _turned_bits(tables: int) -> str:
    """Return instructions that turn eight rows' signs of eight components into a byte for each row."""
    lines = []
    for e in range(_examples(tables)):
        for plane in range(-(-tables // 2)):
            word = "0"
            for place, k in enumerate(range(8 * plane, min(8 * (plane + 1), _COMPONENTS * tables))):
                at = f"{e}_{k}"
                lines += [
                    f"%p_k_offset_{at} = mul i64 %at_{k}, %p_component",
                    f"%p_byte_offset_{at} = add i64 %p_k_offset_{at}, %b",
                    f"%p_k_{at} = getelementptr i8, ptr %p_{e}, i64 %p_byte_offset_{at}",
                    f"%p_bits_{at} = load i8, ptr %p_k_{at}",
                    f"%p_wide_{at} = zext i8 %p_bits_{at} to i64",
                    f"%p_placed_{at} = shl i64 %p_wide_{at}, {8 * place}",
                    f"%p_joined_{at} = or i64 {word}, %p_placed_{at}",
                ]
                word = f"%p_joined_{at}"
            # A matrix of 8 x 8 bits is transposed in three steps: single bits, pairs and fours change places.
            for step, (shift, mask) in enumerate([(7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0xF0F0F0F0)]):
                at = f"{e}_{plane}_{step}"
                lines += [
                    f"%shifted_{at} = lshr i64 {word}, {shift}",
                    f"%differs_{at} = xor i64 {word}, %shifted_{at}",
                    f"%moved_{at} = and i64 %differs_{at}, {mask}",
                    f"%moved_back_{at} = shl i64 %moved_{at}, {shift}",
                    f"%both_{at} = or i64 %moved_{at}, %moved_back_{at}",
                    f"%word_{at} = xor i64 {word}, %both_{at}",
                ]
                word = f"%word_{at}"
    return "\n".join(f"  {line}" for line in lines)


def _multiplied_row(columns: int, tables: int, queries: int, lanes: int) -> str:
    """Return instructions that rebuild a row of each example, and add its products with the same row of the queries."""
    vector = f"<{lanes} x float>"
    lines = ["%first_row = mul i64 %b, 8", "%r = add i64 %first_row, %j", "%row_shift = mul i64 %j, 8"]
    for e in range(_examples(tables)):
        planes = range(-(-tables // 2))
        lines += [f"%row_word_{e}_{plane} = lshr i64 %word_{e}_{plane}_2, %row_shift" for plane in planes]
        for table in range(tables):
            at, lowest = f"{e}_{table}", _COMPONENTS * (table % 2)
            lines += [
                f"%low_{at} = lshr i64 %row_word_{e}_{table // 2}, {lowest}",
                f"%value_{at} = and i64 %low_{at}, 15",
                f"%sums_{at} = getelementptr [16 x [{columns} x float]], ptr %tables, i64 {e * tables + table}, "
                f"i64 %value_{at}",
            ]
    lines.append(f"%m = getelementptr [{queries * columns} x float], ptr %matrices, i64 %r")
    totals = {(e, z): f"%sum_{e}_{z}" for e in range(_examples(tables)) for z in range(queries)}
    for first in range(0, columns, lanes):
        for e in range(_examples(tables)):
            rebuilt = f"{vector} zeroinitializer"
            for table in range(tables):
                at = f"{e}_{table}_{first}"
                lines += [
                    f"%part_place_{at} = getelementptr float, ptr %sums_{e}_{table}, i64 {first}",
                    f"%part_{at} = load {vector}, ptr %part_place_{at}, align 4",
                ]
                if table:
                    lines.append(f"%rebuilt_{at} = fadd {rebuilt}, %part_{at}")
                rebuilt = f"{vector} %{'rebuilt' if table else 'part'}_{at}"
            lines.append(f"%g_{e}_{first} = fadd {rebuilt}, zeroinitializer")
        for z in range(queries):
            lines += [
                f"%m_place_{z}_{first} = getelementptr float, ptr %m, i64 {z * columns + first}",
                f"%m_part_{z}_{first} = load {vector}, ptr %m_place_{z}_{first}, align 4",
            ]
            for e in range(_examples(tables)):
                at = f"{e}_{z}_{first}"
                total = f"%next_{e}_{z}" if first + lanes == columns else f"%so_far_{at}"
                lines += [
                    f"%product_{at} = fmul contract {vector} %g_{e}_{first}, %m_part_{z}_{first}",
                    f"{total} = fadd contract {vector} {totals[e, z]}, %product_{at}",
                ]
                totals[e, z] = total
    return "\n".join(f"  {line}" for line in lines)
