"""Runs in pytest-benchmark's JSON, made by hand."""

import json


def run_data(*names, device_key="cpu_test", ratio=1.0, memory=4096):
    return {
        "machine_info": {"kan_impls": {"device_key": device_key, "device_model": "Test CPU"}},
        "commit_info": {"id": "0123456789abcdef"},
        "benchmarks": [
            {
                "fullname": name,
                "name": name,
                "group": None,
                "stats": {"median": 0.002, "rounds": 5, "data": [0.002] * 5},
                "extra_info": {
                    "measured": {
                        "case": "reference",
                        "implementation": name,
                        "batch": 100,
                        "pass": "forward",
                    },
                    "ratio": ratio,
                    "ratio_uncertainty": 0.01,
                    "ratio_to_mlp": 1.5,
                    "floor_fraction": 0.5,
                    "memory": {"forward_peak_bytes": memory},
                    "parameters": 1234567,
                    "trainable_parameters": 1234560,
                },
            }
            for name in names
        ],
        "datetime": "2026-01-02T03:04:05+00:00",
        "version": "5.3.1",
    }


def write_run(path, *names, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run_data(*names, **options)), encoding="utf-8")
    return path
