"""The contract of a layer, for anybody's: `pytest --pyargs kan_impls.contract --variant ...`, or
`check_layer` on a layer that is there."""

from kan_impls.contract.check import ContractError, check_layer

__all__ = ["ContractError", "check_layer"]
