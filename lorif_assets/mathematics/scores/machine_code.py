"""Machine code from LLVM's own language, compiled for this machine's processor while the program runs."""

import ctypes
import logging
from functools import cache
from typing import Any

_LOG = logging.getLogger(__name__)
_NOTHING = "define void @nothing() {\n  ret void\n}\n"


@cache
def has_wide_registers() -> bool:
    """Return whether the processor has 32 registers of 16 numbers in FP32; most have 16 of 8, or 32 of 4."""
    return "+avx512f" in _processor()[1].split(",")


@cache
def can_compile() -> bool:
    """Return whether LLVM is there and knows this processor; where it is not, that is logged once."""
    try:
        compiled(_NOTHING, "nothing", addresses=0, numbers=0)
    except (ImportError, OSError, RuntimeError) as error:
        _LOG.warning("signs are unpacked before they are scored, which takes longer, as LLVM cannot be used: %s", error)
        return False
    return True


def compiled(instructions: str, name: str, addresses: int, numbers: int) -> Any:
    """Return a function without a result, which takes so many addresses, then so many whole numbers.

    It runs outside of Python's lock.

    Raises:
        RuntimeError: LLVM cannot parse the instructions, or compile them for this processor.
    """
    # A large library, which only a scan of signs needs.
    from llvmlite import binding as llvm

    processor, features = _processor()
    module = llvm.parse_assembly(instructions)
    module.verify()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=processor, features=features, opt=3)
    compiler = llvm.create_mcjit_compiler(module, target)
    compiler.finalize_object()
    of_type = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * addresses, *[ctypes.c_int64] * numbers)
    function: Any = of_type(compiler.get_function_address(name))
    # The code lives as long as its compiler does.
    function.compiler = compiler
    return function


@cache
def _processor() -> tuple[str, str]:
    """Return this machine's processor and its features, as LLVM names them."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
