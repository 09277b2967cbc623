"""Counts instructions of a revision's implementations, under valgrind.

    python count_instructions.py SOURCE HARNESS [PLANT]

SOURCE is the folder of the revision's packages, HARNESS that of `perfgate`, as of
`perfgate/ab/bootstrap.py`. PLANT makes the fused product form worse: `pass`, a Python-level pass
over a small tensor, or `clone`, one more copy of the input.
"""

import os
import random
import sys
from pathlib import Path


def scatter() -> list[bytes]:
    """Half of some thousand objects, in whose holes names and types of all imports will lie.

    Otherwise they lie alike in all processes of a revision, and elsewhere in the next one.
    """
    layout = random.Random(os.environ["PYTHONHASHSEED"])
    blocks = [bytes(layout.randrange(1, 480)) for _ in range(20_000)]
    layout.shuffle(blocks)
    return blocks[::2]


def take_packages(source: str, harness: str) -> None:
    """Make both of them importable; called before anything is imported from either."""
    folder = str(Path(harness, "perfgate", "ab"))
    sys.path.insert(0, folder)
    import bootstrap

    sys.path.remove(folder)
    bootstrap.take_packages(source, harness)


def plant(fault: str) -> None:
    from kan_impls.fused import product

    faults = {
        "pass": lambda x: [value < 0 for value in x[0].tolist()],
        "clone": lambda x: x.clone(),
    }
    extra, forward = faults[fault], product.forward

    def worse(x, *arguments):
        extra(x)
        return forward(x, *arguments)

    product.forward = worse


def main() -> None:
    source, harness, *fault = sys.argv[1:]
    kept = scatter()
    take_packages(source, harness)
    import instruction_cases

    for name in fault:
        plant(name)
    instruction_cases.count(["fused_fourier_kan", "fused_efficient_kan"] if fault else ())
    del kept


if __name__ == "__main__":
    main()
