"""A run against the baselines that are stored for its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from perfgate.judge.judge import Judge
from perfgate.judge.limits import LimitTable, limits_of, read_rules
from perfgate.judge.provenance import Machine, same_machine
from perfgate.judge.record import Code, Measurement, Run
from perfgate.judge.verdict import FALSE_ALARM, NO_ANSWERS, Against, Answers, Verdict
from perfgate.store import baseline

# How many processes a run has where stored noise judges it: the noise is that of their median.
PROCESSES = 3


@dataclass(frozen=True)
class Stored:
    """The accepted runs that a run is compared with, and the limits.

    Args:
        path, run: the newest baseline of the device, or the one that was asked for.
        anchor_path, anchor: of each benchmark the oldest kept measurement of the same work, and
            the oldest file that has one.
        limits: of each benchmark.
        false_alarm: the probability that unchanged code is called changed in any benchmark.
    """

    path: Path | None
    run: Run | None
    anchor_path: Path | None
    anchor: Run | None
    limits: LimitTable
    false_alarm: float = FALSE_ALARM

    def judge(
        self,
        current: Run,
        absent: Mapping[str, str],
        left_out: Iterable[str],
        answers: Answers = NO_ANSWERS,
    ) -> Sequence[Verdict]:
        """Verdicts of all benchmarks; `incomparable` all of them on another device."""
        # A plain file of pytest-benchmark says nothing of devices: who names it knows.
        if (
            self.run is not None
            and self.run.says_device
            and self.run.device_key != current.device_key
        ):
            cause = f"the baseline is of {self.run.device_key}, this run of {current.device_key}"
            return [Verdict(name, "incomparable", cause) for name in current.measurements]
        here = current.machine
        judge = Judge(
            self.run,
            self.anchor,
            self.limits,
            partial(_stranger, here, self.run),
            lambda oldest: not _is_of(here, self.anchor, oldest),
        )
        return judge.judge_run(current, absent, left_out, answers)

    def code_of(self, name: str, against: Against) -> Code:
        """The code that a stored figure of a benchmark is of."""
        run = self.anchor if against == "anchor" else self.run
        assert run is not None
        return run.code_of(name)

    @property
    def knows_noise(self) -> bool:
        """Whether stored times can clear a benchmark."""
        measurements = self.run.measurements.values() if self.run else ()
        return any(m.calibration is not None for m in measurements)


def _stranger(here: Machine | None, run: Run | None, before: Measurement) -> str | None:
    """Why the stored times of a benchmark tell nothing on this machine, if they do not."""
    calibration = before.calibration
    if calibration is None:
        return None
    if not any(origin.is_of(here) for origin in calibration.origins_of_runs):
        return "its noise was calibrated on another machine"
    return None if _is_of(here, run, before) else "its baseline was measured on another machine"


def _is_of(here: Machine | None, run: Run | None, before: Measurement) -> bool:
    """Whether a benchmark of a run was certainly measured on this machine."""
    return run is not None and same_machine(run.machine_of(before.name), here)


def load(
    directory: Path,
    device_key: str,
    wanted: str | None,
    pyproject: Path,
    false_alarm: float = FALSE_ALARM,
    say: Callable[[str], None] = lambda text: None,
) -> Stored:
    """What is stored for a device.

    Args:
        directory: where baselines are stored.
        device_key: the folder of this device.
        wanted: a path, or the number of a stored baseline; None for the newest.
        pyproject: where the limits are.
        false_alarm: the probability that a run of unchanged code has any false alarm.
        say: hears of older baselines that cannot be read.

    Raises:
        BaselineError: a baseline cannot be read, or the wanted one does not exist.
        LimitsError: a limit cannot be used.
    """
    limits = LimitTable(limits_of(device_key), read_rules(pyproject), device_key)
    path = baseline.find(directory, device_key, wanted) or baseline.misplaced(directory, device_key)
    if path is None:
        return Stored(None, None, None, None, limits, false_alarm)
    run = baseline.read_run(path)
    older = baseline.forerunners(directory, device_key, path, say)
    return Stored(path, run, *_anchor(run, older), limits, false_alarm)


def _anchor(run: Run, older: Sequence[Path]) -> tuple[Path | None, Run | None]:
    """The oldest measurements of the same work as the run's, and the oldest file with one."""
    first: Path | None = None
    found: dict[str, Measurement] = {}
    for path in older:
        oldest = baseline.read_run(path)
        for name, measurement in oldest.measurements.items():
            now = run.measurements.get(name)
            if name not in found and now is not None and now.measured == measurement.measured:
                found[name] = replace(
                    measurement, code=oldest.code_of(name), machine=oldest.machine_of(name)
                )
                first = first or path
    return first, replace(run, measurements=found) if found else None
