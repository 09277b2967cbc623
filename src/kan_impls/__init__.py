"""Kolmogorov-Arnold network layers, and the suite that measures them."""

from kan_impls import upstream
from kan_impls.convolution import KANConv2d
from kan_impls.registry import create_layer, create_model, get_variant, list_variants
from kan_impls.variant import Variant

__all__ = [
    "KANConv2d",
    "Variant",
    "create_layer",
    "create_model",
    "get_variant",
    "list_variants",
    "upstream",
]
