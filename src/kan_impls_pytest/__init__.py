"""The option `--variant` of pytest, which the installed package brings to every run.

It stands apart from `kan_impls` because pytest loads it wherever the package is installed, and a
run without the option must not wait for torch.
"""

from __future__ import annotations

from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.getgroup("kan-impls").addoption(
        "--variant",
        action="append",
        default=[],
        metavar="REFERENCE",
        help="bring a layer for this run: path/file.py:factory or package.module:factory, where "
        "factory(in_features, out_features, **options) builds one; more than once for several",
    )


def pytest_configure(config: Any) -> None:
    if config.getoption("variant"):
        from kan_impls import registry
        from kan_impls.brought import BroughtError

        try:
            config.option.variants_brought = registry.bring(config.getoption("variant"))
        except BroughtError as error:
            import pytest

            raise pytest.UsageError(f"--variant: {error}") from error
