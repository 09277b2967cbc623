"""Where things lie in the folder of a project, if no option says otherwise."""

from pathlib import Path

LAST_RUN = Path(".benchmarks") / "last_run.json"
REPORTS = Path(".benchmarks") / "report"
BASELINES = Path("benchmarks") / "baselines"
