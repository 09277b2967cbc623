"""Everything that anybody asks of a basis: the protocol, the registry, and scratch memory.

A basis is a frozen dataclass whose fields are its options. It owns its definition, its fast form
and what the CUDA kernels need to know of it; nothing elsewhere names it.
"""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

BASES: dict[str, type[Basis]] = {}

AnyBasis = TypeVar("AnyBasis", bound="type[Basis]")


def register(basis: AnyBasis) -> AnyBasis:
    """Let `basis_of` know a frozen dataclass by its name."""
    BASES[basis.__name__] = basis
    return basis


@lru_cache(maxsize=4096)
def basis_of(text: str) -> Basis:
    """The basis whose `text` this is.

    Raises:
        ValueError: no basis has this name.
    """
    call = ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or getattr(call.func, "id", None) not in BASES:
        raise ValueError(
            f"the basis is {text!r}; expected one of {', '.join(BASES)} with its options: import "
            "the module that registers it, or correct its name"
        )
    options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    return BASES[call.func.id](**options)  # type: ignore[attr-defined]


class Scratch:
    """Memory for one tensor at a time, taken once: fresh pages cost more than filling them."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self._views: dict[tuple[object, ...], Tensor] = {}

    def empty(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised contiguous tensor on the device of `like`, and of its dtype if none
        is given; it is valid until the next call."""
        key = (*shape, dtype or like.dtype)
        if key not in self._views:
            self._views[key] = self._view(like, shape, dtype or like.dtype)
        return self._views[key]

    def _view(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if self._memory is None or self._memory.numel() < size:
            self._views.clear()
            self._memory = torch.empty(size, dtype=torch.uint8, device=like.device)
        return self._memory[:size].view(dtype).view(shape)


class Basis(ABC):
    """`num_basis` functions of one variable, the same for all inputs but for their parameters.

    The fast form takes x in columns, shape `(inputs, rows)`, in float32 or float64: the values of a
    function are then one matrix, and those of all functions one operand of a product.

    A parameter is a tensor of shape `(sets, size)`: 1 set for all inputs, one for each input, or
    one for each group of neighbouring inputs, of equal sizes. The fast form takes parameters of
    shape `(in_features, size)`, or `(1, size)`.

    Attributes:
        params: names of the parameters.
        trained: those of them that may require a gradient.
        standard: options, whether there is a base branch, whether there are scales, of the layers
            whose kernels are compiled ahead.
        spans_param_grads: whether the derivatives of the functions by `params` are sums of the
            functions, so that `param_grads_of_weights` has them.
    """

    params: ClassVar[tuple[str, ...]] = ()
    trained: ClassVar[tuple[str, ...]] = ()
    standard: ClassVar[tuple[tuple[Mapping[str, Any], bool, bool], ...]] = ()
    spans_param_grads: bool = False

    text: str  # name and options: what an operator can take as an argument, see `basis_of`
    num_basis: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", repr(self))

    @property
    @abstractmethod
    def cuda(self) -> str:
        """The struct of csrc/bases.cuh, such as `"Fourier<5>"`."""

    @property
    def param_sizes(self) -> tuple[int, ...]:
        """How many numbers of each of `params` a set of inputs has."""
        return ()

    @property
    def constants(self) -> tuple[float, ...]:
        """Numbers that the struct reads, at most 4, each as a sum of two floats."""
        return ()

    @property
    def domain(self) -> tuple[float, float]:
        """The x from which a kernel is tested: where the functions vary, and a little beyond."""
        return (-3.0, 3.0)

    def tested_params(self, normal: Sequence[Any]) -> Sequence[Any]:
        """The parameters with which a kernel is tested, from normal numbers of their shapes."""
        return normal

    def misfit(self, *params: Tensor) -> str | None:
        """Why these parameters, of a checkpoint, belong to other options than those here."""
        return None

    @property
    def obstacle(self) -> str | None:
        """Why the CUDA kernels cannot compute this basis, with the remedy."""
        return None

    @abstractmethod
    def elements_held(self, with_slopes: bool) -> int:
        """Elements, of x's dtype, that `prepare`, `evaluate` and `add_input_grad` hold at most for
        one element of x, besides the values and their gradients."""

    @abstractmethod
    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Values by formulas that autograd can differentiate, any number of times:
        shape `(..., in_features)` to `(..., in_features, num_basis)`."""

    def prepare(self, x: Tensor) -> tuple[Tensor, ...]:
        """What `evaluate` takes of x, shape `(inputs, rows)`: tensors of that shape, at most 3."""
        return (x,)

    @abstractmethod
    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        """Write the values at x to `values`, shape `(num_basis, inputs, rows)`.

        Returns:
            With `with_slopes` the derivatives, in the shape of `values`, in memory of `scratch` or
            not; None where the basis has them from the values.
        """

    @abstractmethod
    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        """Add what the functions contribute to the gradient of x, in place.

        Args:
            grad_x: shape of x.
            values, slopes: of `evaluate`; the memory of the slopes may be used.
            grad_phi: the gradients with respect to the values, shape `(num_basis, inputs, rows)`,
                whose memory may be used; or `(num_basis, inputs, 1)` where they are the same for
                all rows, whose memory is that of the weights.
        """

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        """Add what the functions contribute to the gradients of the parameters, in place.

        Only a basis with `trained` parameters has to.

        Args:
            grads: one for each of `params`, shape `(inputs, size)`.
            prepared, params, values: those of `evaluate`.
            grad_phi: as in `add_input_grad`, but of every row, and to be kept.
        """
        raise NotImplementedError(f"{self.text} has no trained parameters")

    def param_grads_of_weights(
        self, products: Tensor, params: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """The gradients of the parameters without those of the values, which cost a matrix product.

        With `dphi_k / dp = sum over l of C_kl phi_l`, that of p is the sum over k and l of `C_kl`
        times the product of the weights of function k and the gradient of those of function l.

        Args:
            products: these, shape `(inputs, num_basis, num_basis)`; their sum over the inputs
                where all have the same parameters.
            params: those of `evaluate`.

        Returns:
            One for each of `params`, shape `(inputs, size)`.
        """
        raise NotImplementedError(f"{self.text} has other derivatives by its parameters")


def add_slopes(grad_x: Tensor, slopes: Tensor | None, grad_phi: Tensor, scale: float = 1) -> None:
    """`Basis.add_input_grad` of a basis whose derivatives are `scale * slopes`."""
    assert slopes is not None
    grad_x.add_(slopes.mul_(grad_phi).sum(0), alpha=scale)


def in_columns(param: Tensor, x: Tensor) -> Tensor:
    """A parameter as it meets x in columns: shape `(size, in_features or 1, 1)`, in x's dtype."""
    return param.to(x.dtype).t().unsqueeze(-1)


class Pointwise(Basis):
    """A basis by its values and slopes alone: the fast form is derived from them.

    `functions` and `slopes` take x of any shape and parameters that broadcast with it, of a shape
    `(size, ...)`; they put the functions first.
    """

    # Tensors as large as all values that `functions` and `slopes` hold at once, results included.
    tensors_at_once: ClassVar[int] = 4

    @abstractmethod
    def functions(self, x: Tensor, *params: Tensor) -> Tensor:
        """The definition: values of shape `(num_basis, *x.shape)`."""

    @abstractmethod
    def slopes(self, x: Tensor, *params: Tensor) -> Tensor:
        """The derivatives by x, shape `(num_basis, *x.shape)`."""

    def elements_held(self, with_slopes: bool) -> int:
        return self.tensors_at_once * self.num_basis + 1

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        shaped = (p.to(x.dtype).t().view(-1, *(1,) * (x.ndim - 1), p.shape[0]) for p in params)
        return self.functions(x, *shaped).movedim(0, -1)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> Tensor | None:
        (x,) = prepared
        shaped = [in_columns(param, x) for param in params]
        values.copy_(self.functions(x, *shaped))
        return self.slopes(x, *shaped) if with_slopes else None

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        add_slopes(grad_x, slopes, grad_phi)
