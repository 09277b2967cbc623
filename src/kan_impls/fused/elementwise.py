"""Launch plans of the kernels that evaluate a basis for the product form.

They take x in columns, shape `(inputs, rows)`, and a layer in float32 without base branch and
scale, whose number of outputs does not matter.
"""

from __future__ import annotations

from kan_impls.fused.plan import Launch, Plan, checked_grid
from kan_impls.fused.problem import Layer, ceil_div

THREADS = 256


def basis_values(layer: Layer) -> Plan:
    """Plan `y`, shape `(num_basis, inputs, rows)`: the values of all functions.

    Raises:
        ValueError: the layer exceeds the grid of a launch.
    """
    return Plan(layer, (_launch("basis_values", layer),), ("x", *_params(layer), "y"))


def basis_slopes(layer: Layer, is_shared: bool = False) -> Plan:
    """Plan what is added to `grad_x`, shape `(inputs, rows)`: the slopes of all functions times
    `grad_y`, shape `(num_basis, inputs, rows)`, or `(num_basis, inputs)` if all rows share it.

    Raises:
        ValueError: as `basis_values`.
    """
    tensors = ("x", *_params(layer), "grad_y", "grad_x")
    return Plan(layer, (_launch("basis_slopes", layer),), tensors, splits=1 if is_shared else 0)


def _launch(kernel: str, layer: Layer) -> Launch:
    grid = (ceil_div(layer.rows * layer.inputs, THREADS), 1, 1)
    return Launch(f"{kernel}<{layer.functions.name}>", checked_grid(grid, layer), THREADS, 0)


def _params(layer: Layer) -> tuple[str, ...]:
    return tuple(f"params{n}" for n in range(len(layer.functions.basis.params)))
