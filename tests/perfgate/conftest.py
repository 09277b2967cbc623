"""What runs of pytest inside pytest need."""

import importlib

import pytest

# What perfgate imports when it first needs it.
LAZY = (
    "archspec.cpu",
    "jinja2",
    "jsonschema",
    "plotly.graph_objects",
    "plotly.offline",
    "scipy.special",
    "tabulate",
)


@pytest.fixture(autouse=True)
def _imported_before(request):
    """A run inside drops the modules that it was the first to import, and some of them, such as
    numpy's, cannot be imported twice in a process, or leave two copies of their classes."""
    if "pytester" in request.fixturenames:
        for name in LAZY:
            importlib.import_module(name)
