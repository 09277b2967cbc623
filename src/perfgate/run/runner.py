"""One benchmark: a workload, measured and handed to pytest-benchmark's fixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch

from perfgate.judge.place import OURS
from perfgate.measure.allocator import keep_freed_memory
from perfgate.measure.cache import Cache, flusher
from perfgate.measure.cuda_timing import TIMERS
from perfgate.measure.evidence import witness_of
from perfgate.measure.launches import count_launches
from perfgate.measure.rounds import OWN, Contest, Schedule, clean_rounds, process_of
from perfgate.measure.timing import ReplayTimer, Timed, Timer
from perfgate.workload import Workload


@dataclass
class Runner:
    """Measures benchmarks of one session on one device.

    Args:
        device: where.
        cache: whether each timed window starts with cold caches.
        new_schedule: makes the schedule of a benchmark's rounds, from its name.
        only_times: leave out memory and facts, which another process measures.
        keep_rounds: record the seconds of every round, for analysis.
        in_turns: another revision is what the times are compared with: leave out companions, and
            take what the workload gives for turns.
        timer_name: which of `TIMERS` times; figures of two of them are not compared.
    """

    device: torch.device
    cache: Cache
    new_schedule: Callable[[str], Schedule]
    only_times: bool = False
    keep_rounds: bool = False
    in_turns: bool = False
    timer_name: str = "wall"
    replay: ReplayTimer = field(default_factory=ReplayTimer)

    @cached_property
    def _flush(self) -> Callable[[], None]:
        return flusher(self.device, self.cache)

    @cached_property
    def timer(self) -> Timer:
        return TIMERS[self.timer_name](self.device)

    @cached_property
    def _keeps_freed_memory(self) -> bool:
        return keep_freed_memory()

    def measure(self, benchmark: Any, workload: Workload) -> None:
        """Measure time and memory of a workload, and describe them in `benchmark.extra_info[OURS]`.

        Args:
            benchmark: pytest-benchmark's fixture, whose timer is `replay`.
            workload: what is measured.
        """
        if not benchmark.enabled:
            workload.prepare()
            benchmark(workload.run)
            return
        info: dict[str, Any] = {
            "measured": {
                **workload.describe(),
                "cache": self.cache,
                "keeps_freed_memory": self._keeps_freed_memory,
            }
        }
        if self.timer_name != "wall":
            info["measured"]["timer"] = self.timer_name
        if not self.only_times:
            info["memory"] = dict(workload.peak_bytes())
            info |= self._launches(workload)
        timed = workload.in_turns() if self.in_turns else workload
        contest = self._contest(timed)
        rounds = contest.run(self.new_schedule(benchmark.fullname))
        process = process_of(rounds)
        seconds = [measured.seconds[OWN] for measured in clean_rounds(rounds)]
        self.replay.load(seconds)
        benchmark.pedantic(lambda: None, rounds=len(seconds), iterations=1)
        timed.release()

        info |= {"processes": [process.entry()], "evidence": [contest.witness.summary()]}
        if self.keep_rounds:
            info["rounds"] = [asdict(measured) for measured in rounds]
        if not self.only_times:
            info |= workload.facts(process.median_ns)
        benchmark.extra_info[OURS] = info

    def _contest(self, workload: Workload) -> Contest:
        own = Timed(workload.run, workload.prepare, workload.release)
        companions = {} if self.in_turns else workload.companions()
        return Contest(own, companions, self.timer, witness_of(self.device), self._flush)

    def _launches(self, workload: Workload) -> dict[str, int]:
        """The kernels of the pass, without those of its first run; nothing on a CPU."""
        if self.device.type != "cuda":
            return {}
        workload.prepare()
        workload.run()
        workload.prepare()
        launches = count_launches(workload.run, self.device)
        return {} if launches is None else {"launches": launches}
