"""Measurements made by hand, whose figures and noise a test chooses."""

import math

from perfgate.judge.limits import Limits
from perfgate.judge.record import Calibration, Measurement, Process, Run

NAME = "benchmarks/test_x.py::test_x[mlp]"
MEASURED = {"case": "reference", "batch": 100, "implementation": "mlp", "pass": "forward"}
LIMITS = Limits(ratio=0.02, visible=0.10, absolute=1.5, drift=0.05, memory_bytes=0)


def process(ratio=1.0, median_ns=1e6, **fields):
    return Process(median_ns=median_ns, ratio=ratio, **{"rounds": 10, **fields})


def processes(*ratios, **fields):
    return [process(ratio, **fields) for ratio in ratios]


def calibration(sd=0.01, runs=10, processes=3, figures=("ratio", "median_ns")):
    """Runs whose figures have exactly that standard deviation of their logarithms."""
    # +1 and -1 in turn, scaled to the sample's standard deviation.
    scale = sd * math.sqrt((runs - 1) / runs)
    values = [math.exp(scale * (-1) ** number) for number in range(runs)]
    return Calibration(processes, [dict.fromkeys(figures, value) for value in values])


def measurement(*ratios, name=NAME, **changes):
    fields = {
        "measured": MEASURED,
        "processes": processes(*(ratios or (1.0, 1.0, 1.0))),
        "memory": {"forward_peak_bytes": 4096},
        "calibration": calibration(),
    }
    return Measurement(name=name, **{**fields, **changes})


def run_of(*measurements, key="k", **fields):
    return Run({"device_key": key}, "c", "d", {m.name: m for m in measurements}, **fields)
