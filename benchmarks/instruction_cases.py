"""What instructions are counted of: small cases, in which the interpreter and autograd show."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch

from kan_impls import list_variants, registry
from perfgate.measure import callgrind
from perfgate.network.case import PASSES, Case
from perfgate.network.workload import pass_of
from perfgate.store.exact import Entry

# Implementations that an installed package registers are counted by nobody here.
CASES = {
    variant.name: Case("small", variant, 8, (16, 16), variant.reference_config)
    for variant in registry.BUILT_IN
    if variant.name in list_variants()
}


def count(implementations: Collection[str] = ()) -> None:
    """Count every pass of the implementations, by default of all, in this process."""
    callgrind.count(
        {
            f"{name} {pass_name}": partial(pass_of, case, pass_name, torch.device("cpu"))
            for name, case in CASES.items()
            for pass_name in PASSES
            if not implementations or name in implementations
        }
    )


def entries(calls: Mapping[str, Sequence[int]]) -> dict[str, Entry]:
    """What `count` counted, as it is stored."""
    passes: dict[str, dict[str, Sequence[int]]] = {}
    for statement, counts in calls.items():
        name, pass_name = statement.split()
        passes.setdefault(name, {})[pass_name] = counts
    return {name: Entry(_shape(CASES[name]), found) for name, found in passes.items()}


def _shape(case: Case) -> str:
    options = " ".join(f"{name}={value}" for name, value in case.config.items())
    return f"batch {case.batch}, {'->'.join(map(str, case.widths))} {options}".rstrip()
