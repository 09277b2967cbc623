"""Which form of the product runs where."""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal["auto", "fused", "product"]


def check_backend(backend: str) -> Backend:
    """Return the backend if there is one of that name.

    Raises:
        ValueError: there is none.
    """
    if backend not in get_args(Backend):
        raise ValueError(
            f"backend is {backend!r}; expected one of {', '.join(get_args(Backend))}: "
            "pass 'auto' to let shape and device decide"
        )
    return backend  # type: ignore[return-value]
