"""The cases of `perfgate.network`."""

from perfgate.network.case import PASSES, Case, Pass, Product

__all__ = ["PASSES", "Case", "Pass", "Product"]
