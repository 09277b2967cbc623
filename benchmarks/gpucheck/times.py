"""Times, memory and floors at the reference configuration, and a sweep over the batch.

    python -m gpucheck.times RESULT.json --device cuda --seconds 130

Everything that is compared is measured in turns; the result is written after every group.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpucheck import compile_times, environment, output
from gpucheck import implementations as impl
from gpucheck.rounds import Budget, Subject, add_floor, first_line, run_rounds, summarize
from gpucheck.stopwatch import measures_of
from kan_impls.fused import cuda, jit, kernels
from perfgate.measure.memory import free_bytes

NO_CUDA = "not run: no CUDA device"
BACKENDS = ("fused", "product")

# Parts of the time; the rest is for compiling, building models and capturing graphs.
STEP_PART, LAYER_PART, SWEEP_PART = 0.3, 0.2, 0.3


@dataclass(frozen=True)
class Sizes:
    """Where the reference is measured, and the batches of the sweep."""

    batch: int
    width: int
    sweep: Sequence[int]
    bandwidth_bytes: int
    square: int


REFERENCE = Sizes(
    100, 1000, (1, 16, 100, 256, 512, 1024, 2048, 4096, 16_384, 65_536), 2 * 2**30, 8192
)
SMALL = Sizes(10, 50, (1, 16), 2**20, 64)


class Times:
    """All groups of measurements on a device, gathered in `found`."""

    def __init__(
        self,
        sizes: Sizes,
        device: torch.device,
        budget: Budget,
        keep: Callable[[dict[str, Any]], None] = lambda found: None,
    ) -> None:
        self.sizes, self.device, self.budget, self._keep = sizes, device, budget, keep
        self.modes = impl.MODES if device.type == "cuda" else ("fp32",)
        self.found: dict[str, Any] = {
            "batch": sizes.batch, "width": sizes.width, "rates": {}, "steps": {}, "layer": {},
            "sweep": [], "clocks": [],
        }  # fmt: skip

    def run(self) -> None:
        self._warm_up_kernels()
        self._rates()
        for mode in self.modes:
            self._steps(mode, self.budget.share(STEP_PART / len(self.modes)))
            self._done()
        for mode in self.modes:
            for which in impl.PASSES:
                self._layer(mode, which, self.budget.share(LAYER_PART / len(self.modes) / 3))
            self._done()
        cells = len(self.sizes.sweep) * len(self.modes) * len(impl.PASSES) * len(impl.KINDS)
        for rows in self.sizes.sweep:
            for mode in self.modes:
                for kind in impl.KINDS:
                    self._sweep(rows, mode, kind, self.budget.share(SWEEP_PART / cells))
            self._done()

    def _done(self) -> None:
        """After a group: keep what is there, note the clocks, let the memory go."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            self.found["clocks"].append(environment.clocks())
        self.found["seconds_left"] = self.budget.left
        self._keep(self.found)

    def _warm_up_kernels(self) -> None:
        """Compile in threads what would be compiled one by one."""
        if self.device.type != "cuda":
            return
        names = kernels.kernels_of_all(compile_times.functions())
        try:
            jit.warmup(names, self.device)
        except Exception as error:  # the measurements then say it one by one
            self.found["warmup_error"] = first_line(error)

    def _rates(self) -> None:
        """Copy bandwidth of a large copy, product rate of a large square, in each mode."""
        size = self.sizes.square
        copy = Subject("copy")
        self._prepare(copy, lambda: impl.copy_work(self.sizes.bandwidth_bytes, self.device))
        run_rounds([copy], self.budget.share(0.02), self.budget.clock, max_rounds=10)
        row = summarize(copy, None)
        if "warm" in row:
            row["bytes_per_s"] = self.sizes.bandwidth_bytes / (row["warm"]["median_us"] * 1e-6)
        self.found["rates"]["copy"] = row
        for mode in self.modes:
            with impl.products_in(mode):
                square = Subject(mode)
                self._prepare(square, self._products(mode, [impl.Product(size, size, size)]))
                run_rounds([square], self.budget.share(0.02), self.budget.clock, max_rounds=10)
            row = summarize(square, None)
            if "warm" in row:
                row["flops_per_s"] = 2 * size**3 / (row["warm"]["median_us"] * 1e-6)
            self.found["rates"][f"product {mode}"] = row
        self._done()

    def _prepare(self, subject: Subject, build: Callable[[], Callable[[], Any]]) -> None:
        """Give the subject its measures, or the reason why it has none."""
        try:
            work = build()
            subject.measures = measures_of(work, self.device, getattr(work, "clear", None))
        except Exception as error:
            subject.errors["all"] = first_line(error)

    def _products(self, mode: str, products: list[impl.Product]) -> Callable:
        return lambda: impl.products_work(products, self.device, impl.element_of(mode))

    # Training steps

    def _steps(self, mode: str, seconds: float) -> None:
        subjects, floors, memory = [], {}, {}
        with impl.products_in(mode):
            for implementation in impl.IMPLEMENTATIONS:
                subject = Subject(implementation.label)
                subjects.append(subject)
                if implementation.needs_cuda and self.device.type != "cuda":
                    subject.errors["all"] = NO_CUDA
                    continue
                case = implementation.case(self.sizes.batch, self.sizes.width)
                try:
                    step = impl.Step(case, self.device, mode)
                    subject.measures = measures_of(step, self.device, step.clear)
                    memory[subject.name] = step.peak_bytes()
                except Exception as error:
                    subject.errors["all"] = first_line(error)
                floors[subject.name] = self._floor_of(
                    mode, case.products("training_step"), case.compulsory_bytes("training_step")
                )
            shared = {floor.name: floor for pair in floors.values() for floor in pair}
            run_rounds([*subjects, *shared.values()], seconds, self.budget.clock)
        rows = self._table(subjects, floors, shared)
        for name, peaks in memory.items():
            rows[name]["memory"] = peaks
        self.found["steps"][mode] = rows

    def _floor_of(
        self, mode: str, products: list[impl.Product], num_bytes: int
    ) -> tuple[Subject, Subject]:
        """Product and copy of a size, each measured once for all that share it."""
        product = Subject("products " + "+".join("x".join(map(str, p)) for p in products))
        copy = Subject(f"copy {num_bytes} bytes")
        for floor, build in (
            (product, self._products(mode, products)),
            (copy, lambda: impl.copy_work(num_bytes, self.device)),
        ):
            self._prepare(floor, build)
        return product, copy

    def _table(
        self,
        subjects: Sequence[Subject],
        floors: dict[str, tuple[Subject, Subject]],
        shared: dict[str, Subject],
    ) -> dict[str, Any]:
        """The figures of every subject and floor, by name; the first subject is the MLP."""
        rows = {
            subject.name: summarize(subject, subjects[0])
            for subject in (*subjects, *shared.values())
        }
        for name, pair in floors.items():
            product, copy = (rows[floor.name] for floor in pair)
            add_floor(rows[name], product, copy)
        return rows

    # The hidden layer

    def _layer(self, mode: str, which: str, seconds: float) -> None:
        batch, width = self.sizes.batch, self.sizes.width
        subjects, floors = [Subject(impl.MLP)], {}
        with impl.products_in(mode):
            self._prepare(
                subjects[0], lambda: impl.mlp_pass(which, batch, width, self.device, mode)
            )
            for kind in impl.KINDS:
                passes = impl.LayerPasses(kind, batch, width, self.device, mode)
                depth = kind.terms * width
                size = impl.element_of(mode).itemsize
                num_bytes = size * (depth * width + 2 * batch * width)
                pair = self._floor_of(
                    mode, [impl.product_of(which, batch, depth, width)], num_bytes
                )
                for backend in BACKENDS:
                    subject = self._pass_of(passes, which, backend)
                    floors[subject.name] = pair
                    subjects.append(subject)
            shared = {floor.name: floor for pair in floors.values() for floor in pair}
            run_rounds([*subjects, *shared.values()], seconds, self.budget.clock)
        rows = self._table(subjects, floors, shared)
        self.found["layer"].setdefault(mode, {})[which] = rows

    def _pass_of(self, passes: impl.LayerPasses, which: str, backend: str) -> Subject:
        subject = Subject(f"{passes.kind.name} {backend}")
        if backend == "fused" and self.device.type != "cuda":
            subject.errors["all"] = NO_CUDA
        else:
            self._prepare(subject, lambda: passes.work(which, backend))
        return subject

    # The sweep over the batch

    def _sweep(self, rows: int, mode: str, kind: impl.Kind, seconds: float) -> None:
        """Kernels against product form, cold where there are events."""
        place = {"rows": rows, "mode": mode, "kind": kind.name}
        width = self.sizes.width
        # x, y, gradients, and what the product form holds of the basis besides its workspace.
        needed = 4 * (6 * rows * width + 3 * kind.terms * width * width) + 2**28
        if self.device.type == "cuda" and needed > free_bytes(self.device):
            self.found["sweep"].append({**place, "skipped": f"needs {needed / 1e9:.1f} GB"})
            return
        with impl.products_in(mode):
            passes = impl.LayerPasses(kind, rows, width, self.device, mode)
            for which in impl.PASSES:
                if self.budget.left <= 0:
                    self.found["sweep"].append({**place, "pass": which, "skipped": "no time left"})
                    continue
                subjects = [self._pass_of(passes, which, backend) for backend in BACKENDS]
                for subject in subjects:
                    for measure in ("warm", "graph") if "cold" in subject.measures else ():
                        del subject.measures[measure]
                run_rounds(subjects, seconds, self.budget.clock, max_rounds=15)
                cell = {
                    backend: summarize(subject, subjects[1])
                    for backend, subject in zip(BACKENDS, subjects, strict=True)
                }
                self.found["sweep"].append({**place, "pass": which, **cell})


def problems_of(found: dict[str, Any]) -> list[str]:
    """What could not be measured, other than for lack of a GPU."""
    tables = [*found["steps"].items()]
    tables += [(f"{m} {w}", rows) for m, by in found["layer"].items() for w, rows in by.items()]
    problems = []
    for title, rows in tables:
        for name, row in rows.items():
            for measure, error in row.get("errors", {}).items():
                if error != NO_CUDA:
                    problems.append(f"{title} {name} {measure}: {error}")
    for cell in found["sweep"]:
        for backend in BACKENDS:
            for error in cell.get(backend, {}).get("errors", {}).values():
                if error != NO_CUDA:
                    where = f"{cell['rows']} rows {cell['mode']} {cell['kind']} {cell['pass']}"
                    problems.append(f"sweep {where} {backend}: {error}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=130)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        cuda.device_of(0)
    budget = Budget(options.seconds, time.perf_counter)
    sizes = SMALL if options.small else REFERENCE
    times = Times(sizes, device, budget, lambda found: output.write(options.result, found))
    times.run()
    problems = problems_of(times.found)
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
