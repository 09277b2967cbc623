"""One benchmark: a case and a pass, measured and handed to pytest-benchmark's fixture."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from kan_impls.bench.case import Case, Pass
from kan_impls.bench.measure import memory
from kan_impls.bench.measure.allocator import keep_freed_memory, return_freed_memory
from kan_impls.bench.measure.cache import Cache, flusher
from kan_impls.bench.measure.evidence import witness_of
from kan_impls.bench.measure.floor import measure_floor
from kan_impls.bench.measure.launches import count_launches
from kan_impls.bench.measure.reference import (
    STREAM_BYTES,
    like_kind_reference,
    rows_within,
)
from kan_impls.bench.measure.rounds import OWN, Contest, Schedule, clean_rounds, process_of
from kan_impls.bench.measure.timing import ReplayTimer, SynchronizedTimer, Timed
from kan_impls.bench.record import OURS
from kan_impls.bench.workload import NoEstimateError, Workload, estimate_bytes


class NotEnoughMemoryError(Exception):
    """The case needs more memory than is free."""


_not_estimated: set[str] = set()


def check_memory(case: Case, device: torch.device) -> None:
    """Raise NotEnoughMemoryError, with the estimate, if the case would not fit.

    Of an implementation that has no estimate this is said once, and it is measured all the same.
    """
    return_freed_memory()
    try:
        needed, free = estimate_bytes(case), memory.free_bytes(device)
    except NoEstimateError as error:
        if case.variant.name not in _not_estimated:
            _not_estimated.add(case.variant.name)
            warnings.warn(
                f"{case.variant.name} is measured without an estimate of its memory, because it "
                f"does not run on tensors without values ({error}); a case that does not fit "
                "fails: choose smaller ones if so",
                stacklevel=2,
            )
        return
    if needed > free:
        raise NotEnoughMemoryError(
            f"{case.variant.name} at {case.name} needs an estimated {needed / 1e9:.2f} GB, but "
            f"{free / 1e9:.2f} GB are free on {device}: free memory or use a larger machine"
        )


def _in_few_rows(case: Case) -> Case:
    """The case, or as many of its rows as the like-kind reference takes, where every row streams as
    much: gigabytes of new pages are the noisiest of all, and cost seconds."""
    if case.variant.bound != "stream":
        return case
    largest = max(case.products("forward"), key=lambda product: product.flops)
    return replace(case, batch=rows_within(STREAM_BYTES, largest))


@dataclass
class Runner:
    """Measures benchmarks of one session on one device.

    Args:
        device: where.
        cache: whether each timed window starts with cold caches.
        new_schedule: makes the schedule of a benchmark's rounds, from its name.
        only_times: leave out memory, floors and counts, which another process measures.
        keep_rounds: record the seconds of every round, for analysis.
        in_turns: another revision is what the times are compared with: leave out the reference and
            the MLP, and take of a case that materialises gigabytes as many rows as say the same.
    """

    device: torch.device
    cache: Cache
    new_schedule: Callable[[str], Schedule]
    only_times: bool = False
    keep_rounds: bool = False
    in_turns: bool = False
    replay: ReplayTimer = field(default_factory=ReplayTimer)
    _memory: dict[str, dict[str, int]] = field(default_factory=dict)

    @cached_property
    def _flush(self) -> Callable[[], None]:
        return flusher(self.device, self.cache)

    @cached_property
    def _keeps_freed_memory(self) -> bool:
        return keep_freed_memory()

    def measure(self, benchmark: Any, case: Case, beside: Case | None, pass_name: Pass) -> None:
        """Measure time and memory of a pass, and describe them in `benchmark.extra_info[OURS]`.

        Args:
            benchmark: pytest-benchmark's fixture, whose timer is `replay`.
            case: what is measured.
            beside: the MLP's case, interleaved as well for the table; None for none.
            pass_name: which pass.

        Raises:
            NotEnoughMemoryError: the case would not fit.
        """
        if not self.only_times:
            check_memory(case, self.device)
        workload = Workload(case, pass_name, self.device)
        if not benchmark.enabled:
            workload.prepare()
            benchmark(workload.run)
            return
        info: dict[str, Any] = {
            "measured": {
                **case.describe(), "pass": pass_name, "reference": case.variant.bound,
                "reference_flops": case.flops(pass_name), "cache": self.cache,
                "keeps_freed_memory": self._keeps_freed_memory,
            }
        }  # fmt: skip
        if not self.only_times:
            info["memory"] = self._memory_of(case, workload)
            info |= self._launches(workload)
        if self.in_turns and (smaller := _in_few_rows(case)) != case:
            workload = Workload(smaller, pass_name, self.device)
        contest = self._contest(case, beside, pass_name, workload)
        rounds = contest.run(self.new_schedule(benchmark.fullname))
        process = process_of(rounds)
        seconds = [measured.seconds[OWN] for measured in clean_rounds(rounds)]
        self.replay.load(seconds)
        benchmark.pedantic(lambda: None, rounds=len(seconds), iterations=1)
        workload.release()

        info |= {"processes": [asdict(process)], "evidence": [contest.witness.summary()]}
        if self.keep_rounds:
            info["rounds"] = [asdict(measured) for measured in rounds]
        if not self.only_times:
            info |= self._counts(case, pass_name, workload, process.median_ns)
        benchmark.extra_info[OURS] = info

    def _contest(
        self, case: Case, beside: Case | None, pass_name: Pass, workload: Workload
    ) -> Contest:
        companions = {}
        if not self.in_turns:
            companions["ratio"] = like_kind_reference(case, pass_name, self.device)
            if beside is not None and beside != case:
                mlp = Workload(beside, pass_name, self.device)
                companions["ratio_to_mlp"] = Timed(mlp.run, mlp.prepare, mlp.release)
        own = Timed(workload.run, workload.prepare, workload.release)
        timer = SynchronizedTimer(self.device)
        return Contest(own, companions, timer, witness_of(self.device), self._flush)

    def _memory_of(self, case: Case, workload: Workload) -> dict[str, int]:
        """The peaks, which do not depend on what of the passes is timed."""
        key = repr((case.describe(), workload.x.requires_grad))
        if key not in self._memory:
            self._memory[key] = workload.measure_memory()
        return self._memory[key]

    def _launches(self, workload: Workload) -> dict[str, int]:
        """The kernels of the pass, without those of its first run; nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        workload.prepare()
        workload.run()
        workload.prepare()
        launches = count_launches(workload.run, self.device)
        return {} if launches is None else {"launches": launches}

    def _counts(
        self, case: Case, pass_name: Pass, workload: Workload, median_ns: float
    ) -> dict[str, Any]:
        floor = measure_floor(
            self.device, tuple(case.products(pass_name)), case.compulsory_bytes(pass_name)
        )
        parameters, trainable = workload.parameter_counts()
        return {
            "parameters": parameters,
            "trainable_parameters": trainable,
            "flops": case.flops(pass_name),
            "floor_product_ns": floor.product_ns,
            "floor_copy_ns": floor.copy_ns,
            "floor_fraction": floor.ns / median_ns,
        }
