"""Basis times weights without the basis: evaluated, multiplied and forgotten, block by block."""
