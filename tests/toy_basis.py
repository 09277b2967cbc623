"""A basis that the project does not have, as its author would add it: what goes into which file.

The functions are tanh(a x)^k, k = 1..degree, with one trained number a for each input.
"""

# src/kan_impls/variants/toy_kan.py
VARIANT = '''"""Powers of tanh, with everything around them that a layer can have."""

from dataclasses import dataclass

import torch
from torch import nn

from kan_impls.basis.base import Pointwise, register
from kan_impls.layer import both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


@register
@dataclass(frozen=True)
class ToyBasis(Pointwise):
    degree: int

    params = trained = ("slopes",)
    param_sizes = (1,)
    standard = (({"degree": 3}, True, True),)

    @property
    def num_basis(self):
        return self.degree

    @property
    def cuda(self):
        return f"Toy<{self.degree}>"

    def functions(self, x, *params):
        return (params[0] * x).tanh() ** self._numbers(x)

    def slopes(self, x, *params):
        t, k = (params[0] * x).tanh(), self._numbers(x)
        return params[0] * k * t ** (k - 1) * (1 - t * t)

    def _numbers(self, x):
        return torch.arange(1, self.degree + 1, device=x.device).view(-1, *(1,) * x.ndim)

    def add_param_grads(self, grads, prepared, params, values, grad_phi):
        (x,) = prepared
        t, k = values[0], self._numbers(x)
        grads[0][:, 0] += (grad_phi * k * t ** (k - 1) * (1 - t * t) * x).sum((0, 2))


def draw(layer):
    for name in ("weight", "base_weight"):
        layer.start(name, lambda value: nn.init.normal_(value, std=0.1))
    for name in ("scale", "slopes"):
        layer.start(name, nn.init.ones_)
    layer.start("bias", nn.init.zeros_)


SPEC = Spec(
    formula="b + SiLU(x) u + sum_ik tanh(a_i LN(x)_i)^k s_io w_kio",
    paper="none",
    basis=ToyBasis,
    weight=Stored("toy.coeffs", "(i k) o", fused="k i o", name="weight"),
    base=Stored("base_linear.weight", "o i", fused="i o"),
    scale=Stored("scales", "i o", fused="i o"),
    bias=Stored("bias", "o", fused="o"),
    params={"slopes": Stored("slopes", "i n", fused="i n")},
    norm="use_layernorm",
    init=draw,
    options={"degree": 3, "use_layernorm": False},
    size="degree",
    reference_config={"degree": 9},
)

VARIANTS = both_forms("toy_kan", SPEC)
'''

# At the end of src/kan_impls/fused/csrc/bases.cuh
STRUCT = """
template <int D>
struct Toy : Plain {
  static const int NUM_FUNCTIONS = D;
  static const int NUM_PARAMS = 1;

  float x, a, t, power;  // power: of the odd function of the pair before
  float rate;            // of tanh
  int current;

  __device__ __forceinline__ void start(float x_, long long input, int pair,
                                        const Problem& problem) {
    x = x_, a = *param_row<0, 1>(problem, input), current = pair;
    t = tanhf(a * x), power = 1.f;
    rate = 1.f / coshf(a * x), rate *= rate;  // 1 - t * t, which would lose its digits
    for (int k = 0; k < 2 * pair; k++) power *= t;
  }
  __device__ __forceinline__ void next() { power *= t * t, current++; }
  __device__ __forceinline__ float even() const { return power * t; }
  __device__ __forceinline__ float odd() const { return power * t * t; }
  __device__ __forceinline__ float even_slope() const { return a * even_rate(); }
  __device__ __forceinline__ float odd_slope() const { return a * odd_rate(); }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float odd, Add add) const {
    add(0, x * (even * even_rate() + odd * odd_rate()));
  }

 private:
  __device__ __forceinline__ float even_rate() const {
    return (2 * current + 1) * power * rate;
  }
  __device__ __forceinline__ float odd_rate() const {
    return (2 * current + 2) * power * t * rate;
  }
};
"""

# At the end of tests/cases.py
ROW = """

def toy_phi_ref(degree):
    import numpy as np

    from tests.reference import Phi

    def phi_ref(x, a):
        k = np.arange(1, degree + 1)
        t = np.tanh(a[:, 0] * x)[..., None]
        rates = k * t ** (k - 1) * (1 - t**2)
        return Phi(t**k, a[:, :1] * rates, ((x[..., None] * rates)[..., None],))

    return phi_ref


def toy_layer_ref(x, parameters, grad_y):
    from tests.reference import basis_layer_ref

    coeffs = parameters["toy.coeffs"].reshape(x.shape[1], -1, grad_y.shape[1])
    reference = basis_layer_ref(
        toy_phi_ref, weight="toy.coeffs iko", scale="scales io",
        base_weight="base_linear.weight oi", bias="bias o", params0="slopes ip",
    )
    passes = reference(x, {**parameters, "toy.coeffs": coeffs}, grad_y)
    passes.grads["toy.coeffs"] = passes.grads["toy.coeffs"].reshape(-1, grad_y.shape[1])
    return passes


ROWS |= both_rows(
    "toy_kan",
    Row(
        toy_layer_ref,
        (
            {"in_features": 3, "out_features": 2, "degree": 3},
            {"in_features": 13, "out_features": 7, "degree": 4, "use_layernorm": True},
        ),
        parameters=11_014_001,
        amplification=lambda config, largest: 10 * config.get("degree", 3),
        # A LayerNorm in front keeps its input and what it gives.
        saved_per_input=lambda config: 3 * config.get("use_layernorm", False),
        bases=tuple(map(kan_impls.basis.base.BASES["ToyBasis"], (3, 4, 17))),
        phi_ref=lambda basis: toy_phi_ref(basis.degree),
    ),
    saved_per_input=lambda config: 9 * config["degree"] + 9,
)
"""
