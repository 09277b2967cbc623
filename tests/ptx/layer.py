"""A layer of `tests.emulated_layer`, computed by the PTX of its kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from kan_impls.fused import compiler
from kan_impls.fused.kernels import Launch
from tests.emulated_layer import Case, LayerRun
from tests.ptx.machine import Machine
from tests.ptx.memory import Global
from tests.ptx.parse import Fault, Kernel, parse

TARGET = "compute_90"

# A gradient of a parameter is a sum in memory: one thread adds to it more than once.
ACCUMULATED = {"grad_params"}

# Threads that run together: the more, the less Python for each, until they leave the cache.
MAX_THREADS = 4096

Edit = Callable[[str], str]


@cache
def text_of(kernel: str, source_edit: Edit | None = None) -> tuple[str, str]:
    """PTX and symbol of a kernel, of sources that `source_edit` changed where given."""
    files = compiler.sources()
    if source_edit is not None:
        files = {name: source_edit(text) for name, text in files.items()}
    compiled = compiler.compile_kernel(kernel, TARGET, files)
    return compiled.image.rstrip(b"\0").decode(), compiled.symbol


def run(case: Case, edit: Edit | None = None, source_edit: Edit | None = None):
    """y and the gradients, as `tests.emulated_layer.run`.

    Args:
        edit: changes the PTX.
        source_edit: changes each file of the sources.

    Raises:
        Fault: a launch does what a kernel must not do.
    """
    state = LayerRun(case)
    addresses = {name: buffer.address for name, buffer in state.tensors.items()}
    for plan in case.plans():
        names = [name for name in state.tensors if name in (*plan.tensors, "bias")]
        outputs = {name for name in names if is_output(name)}
        tensors = {name: state.tensors[name].bytes for name in names}
        memory = Global(tensors, {name: addresses[name] for name in names}, outputs)
        for launch in plan.at(addresses, [case.sets] * len(case.basis.params)):
            text, symbol = text_of(launch.kernel, source_edit)
            text = text if edit is None else edit(text)
            execute(parse(text, symbol), launch, memory)
        memory.finish(ACCUMULATED)
    return state.results()


def is_output(name: str) -> bool:
    return name in ("y", "workspace") or (name.startswith("grad_") and name != "grad_y")


def execute(kernel: Kernel, launch: Launch, memory: Global) -> None:
    memory.begin_launch()
    x, y, z = (np.arange(size) for size in launch.grid)
    blocks = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)
    together = max(1, MAX_THREADS // launch.threads)
    for first in range(0, len(blocks), together):
        some = blocks[first : first + together]
        try:
            Machine(
                kernel,
                launch.arguments,
                launch.grid,
                some,
                launch.threads,
                launch.shared_bytes,
                memory,
            ).run()
        except Fault as fault:
            raise Fault(f"{launch.kernel}: {fault}") from fault
