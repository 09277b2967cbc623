"""Forward and backward of implementations against the MLP, alternately in one process.

    python benchmarks/race.py fused_fourier_kan fused_efficient_kan
    python benchmarks/race.py fused_efficient_kan efficient_kan --widths 784 256 10 --batch 36864

Prints medians over rounds of the times and of their ratios to the MLP's in the same round, with
and without the gradient of the input. Without --widths, each has its widths of the original
comparison. The order changes from round to round.
"""

import argparse
import statistics
from typing import NamedTuple

import torch

from kan_impls import get_variant
from perfgate.measure.timing import SynchronizedTimer
from perfgate.network.case import Case
from perfgate.network.passes import ModulePass
from perfgate.network.workload import pass_of

WARM_UP_ROUNDS = 2


class Times(NamedTuple):
    """Seconds of a round."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        return self.forward + self.backward


def time_once(workload: ModulePass, timer: SynchronizedTimer) -> Times:
    start = timer()
    loss = workload.loss(workload.forward())
    middle = timer()
    loss.backward()
    end = timer()
    workload.release()
    return Times(middle - start, end - middle)


def race(workloads: list[ModulePass], rounds: int, timer: SynchronizedTimer) -> list[list[Times]]:
    """For each of the workloads, its times in every round."""
    times: list[list[Times]] = [[] for _ in workloads]
    for number in range(WARM_UP_ROUNDS + rounds):
        order = list(enumerate(workloads))
        for index, workload in order if number % 2 else reversed(order):
            measured = time_once(workload, timer)
            if number >= WARM_UP_ROUNDS:
                times[index].append(measured)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", help="implementations")
    parser.add_argument("--widths", type=int, nargs="+", help="of all networks")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    names = ["mlp", *(name for name in options.names if name != "mlp")]
    for pass_name in ("backward", "backward_with_input_grad"):
        workloads = []
        for variant in map(get_variant, names):
            widths = options.widths or variant.reference_widths
            case = Case("race", variant, options.batch, widths, variant.reference_config)
            workloads.append(pass_of(case, pass_name, device))
        times = race(workloads, options.rounds, SynchronizedTimer(device))
        print(f"forward and {pass_name.replace('_', ' ')}, {options.rounds} rounds")
        for name, own in zip(names, times, strict=True):
            print(f"  {name:20}", *(describe(field, own, times[0]) for field in FIELDS), sep="  ")


FIELDS = ("forward", "backward", "both")


def describe(field: str, own: list[Times], mlp: list[Times]) -> str:
    seconds = statistics.median(getattr(time, field) for time in own)
    pairs = zip(own, mlp, strict=True)
    ratio = statistics.median(getattr(a, field) / getattr(b, field) for a, b in pairs)
    return f"{field} {1e3 * seconds:9.2f} ms = {ratio:.3f} of the MLP"


if __name__ == "__main__":
    main()
