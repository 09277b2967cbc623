"""Oracles in float64, from the mathematics alone: NumPy, the definitions, closed derivatives.

They share no code with what they judge. Parameters come under their published keys and
shapes. Letters of the sums: batch b, input i, output o, basis function k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from scipy import special

from kan_impls.contract.passes import Array, Passes

Parameters = Mapping[str, Array]

Reference = Callable[[Array, Parameters, Array], Passes]


class Phi(NamedTuple):
    """A basis at x: values and slopes of shape (b, i, k), and the derivatives by each of its
    parameters, of shape (b, i, k, size)."""

    values: Array
    slopes: Array
    by_params: tuple[Array, ...] = ()


# From x of shape (b, i) and the parameters of the basis, one row for each input.
PhiReference = Callable[..., Phi]


def bspline_ref(i: int, order: int, knots: Array, x: float) -> float:
    """B_i of the given order at x, by the recursive definition of Cox and de Boor."""

    @cache  # otherwise order 20 would take a million steps
    def spline(i: int, order: int) -> float:
        if order == 0 or not knots[i] <= x < knots[i + order + 1]:  # outside the support
            return float(knots[i] <= x < knots[i + order + 1])
        value = 0.0
        if knots[i + order] > knots[i]:  # otherwise 0/0, which is 0 by convention
            rising = (x - knots[i]) / (knots[i + order] - knots[i])
            value += rising * spline(i, order - 1)
        if knots[i + order + 1] > knots[i + 1]:
            falling = (knots[i + order + 1] - x) / (knots[i + order + 1] - knots[i + 1])
            value += falling * spline(i + 1, order - 1)
        return value

    return spline(i, order)


def bspline_derivative_ref(i: int, order: int, knots: Array, x: float) -> float:
    """The derivative of B_i at x: a difference of two splines of one order less."""
    slope = 0.0
    if knots[i + order] > knots[i]:
        slope += order / (knots[i + order] - knots[i]) * bspline_ref(i, order - 1, knots, x)
    if knots[i + order + 1] > knots[i + 1]:
        width = knots[i + order + 1] - knots[i + 1]
        slope -= order / width * bspline_ref(i + 1, order - 1, knots, x)
    return slope


def basis_matrix_ref(x: Array, knots: Array, order: int, spline=bspline_ref) -> Array:
    """`spline` of every basis function: x (b, i), knots (i, n) to (b, i, n - order - 1)."""
    num_basis = knots.shape[1] - order - 1
    phi = np.empty((*x.shape, num_basis))
    for b, i, k in np.ndindex(phi.shape):
        phi[b, i, k] = spline(k, order, knots[i], x[b, i])
    return phi


def sigmoid_ref(x: Array) -> Array:
    decay = np.exp(-np.abs(x))  # at most 1: no overflow
    return np.where(x >= 0, 1, decay) / (1 + decay)


def sech_ref(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return 2 * decay / (1 + decay**2)


def spline_phi_ref(grid_size: int, order: int, low: float, high: float) -> PhiReference:
    """B-splines of `grid_size` equal intervals from low to high, and `order` more on each side."""
    knots = low + np.arange(-order, grid_size + order + 1) * ((high - low) / grid_size)

    def phi_ref(x: Array) -> Phi:
        own = np.tile(knots, (x.shape[1], 1))
        slopes = basis_matrix_ref(x, own, order, bspline_derivative_ref)
        return Phi(basis_matrix_ref(x, own, order), slopes)

    return phi_ref


def fourier_phi_ref(grid_size: int) -> PhiReference:
    """cos(kx), sin(kx) in turn, k = 1..grid_size."""
    k = np.arange(1.0, grid_size + 1)

    def phi_ref(x: Array) -> Phi:
        cos, sin = np.cos(x[..., None] * k), np.sin(x[..., None] * k)
        in_turn = (
            np.stack(pair, -1).reshape(*x.shape, -1) for pair in ((cos, sin), (-k * sin, k * cos))
        )
        return Phi(*in_turn)

    return phi_ref


def sine_phi_ref(x: Array, frequencies: Array, phases: Array) -> Phi:
    """sin(f x + p) for each f and its p."""
    angle = x[..., None] * frequencies + phases
    cos, own = np.cos(angle), np.eye(angle.shape[-1])
    by_phases = cos[..., None] * own
    return Phi(np.sin(angle), frequencies * cos, (x[..., None, None] * by_phases, by_phases))


def rational_phi_ref(x: Array, numerator: Array, denominator: Array) -> Phi:
    """P / Q with P = sum_j a_j x^j and Q = 1 + sum_j |b_j x^j|, and the rule of quotients."""
    j, size = np.arange(numerator.shape[1]), np.arange(1, denominator.shape[1] + 1)
    to_p, to_q = x[..., None] ** j, np.abs(x)[..., None] ** size
    p, q = (to_p * numerator).sum(-1), 1 + (to_q * np.abs(denominator)).sum(-1)
    p_slope = (to_p[..., :-1] * (j * numerator)[:, 1:]).sum(-1)
    one_less = np.abs(x)[..., None] ** (size - 1)
    q_slope = np.sign(x) * (one_less * size * np.abs(denominator)).sum(-1)
    by_a = to_p / q[..., None]
    by_b = -(p / q**2)[..., None] * to_q * np.sign(denominator)
    slopes = p_slope / q - p * q_slope / q**2
    return Phi((p / q)[..., None], slopes[..., None], (by_a[..., None, :], by_b[..., None, :]))


def rational_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = bias_o + sum_i w_oi P(x_bi) / Q_i(x_bi): one P, and one Q for each group of inputs."""
    of_p, of_q = parameters["act.weight_numerator"], parameters["act.weight_denominator"]
    weight, size = parameters["fc.weight"], x.shape[1] // len(of_q)
    phi = rational_phi_ref(x, np.tile(of_p, (x.shape[1], 1)), np.repeat(of_q, size, 0))
    back = grad_y @ weight
    by_p, by_q = (np.einsum("bi,bin->in", back, by[:, :, 0]) for by in phi.by_params)
    grads = {
        "act.weight_numerator": by_p.sum(0, keepdims=True),
        "act.weight_denominator": by_q.reshape(len(of_q), size, -1).sum(1),
        "fc.weight": grad_y.T @ phi.values[..., 0],
    }
    y = phi.values[..., 0] @ weight.T
    if "fc.bias" in parameters:
        y += parameters["fc.bias"]
        grads["fc.bias"] = grad_y.sum(0)
    return Passes(y, back * phi.slopes[..., 0], grads)


def chebyshev_phi_ref(degree: int) -> PhiReference:
    """T_k(t) and k U_(k-1)(t) dt/dx, by SciPy, of t = tanh x; T_k(t) = (-1)^k T_k(-t)."""

    def phi_ref(x: Array) -> Phi:
        k = np.arange(degree + 1)
        t = np.tanh(x)[..., None]
        slopes = k * special.eval_chebyu(np.maximum(k - 1, 0), t) * sech_ref(x)[..., None] ** 2
        return Phi(special.eval_chebyt(k, t), slopes)

    return phi_ref


def jacobi_phi_ref(degree: int, a: float, b: float) -> PhiReference:
    """P_k^(a,b)(t) and (k + a + b + 1) / 2 P_(k-1)^(a+1,b+1)(t) dt/dx, by SciPy, of t = tanh x."""

    def phi_ref(x: Array) -> Phi:
        k = np.arange(degree + 1)
        t = np.tanh(x)[..., None]
        by_t = (k + a + b + 1) / 2 * special.eval_jacobi(np.maximum(k - 1, 0), a + 1, b + 1, t)
        by_t[..., 0] = 0
        return Phi(special.eval_jacobi(k, a, b, t), by_t * sech_ref(x)[..., None] ** 2)

    return phi_ref


def gaussian_ref(z: Array) -> tuple[Array, Array]:
    """exp(-z^2) and its derivative."""
    return np.exp(-(z**2)), -2 * z * np.exp(-(z**2))


def switch_ref(z: Array) -> tuple[Array, Array]:
    """sech^2(z) and its derivative."""
    decay = np.exp(-np.abs(z))
    value = (2 * decay / (1 + decay**2)) ** 2
    return value, -2 * np.tanh(z) * value


def radial_phi_ref(bump: Callable, width: float) -> PhiReference:
    """A bump around each centre, of so many units, which are parameters."""

    def phi_ref(x: Array, centres: Array) -> Phi:
        values, rates = bump((x[..., None] - centres) / width)
        slopes = rates / width
        return Phi(values, slopes, (-slopes[..., None] * np.eye(slopes.shape[-1]),))

    return phi_ref


def gram_phi_ref(x: Array, weights: Array) -> Phi:
    """P_k = t P_(k-1) - c_k w_(k-1) P_(k-2), by the coefficients of each polynomial in t = tanh x,
    whose derivatives by the weights are polynomials, too."""
    size = weights.shape[1]
    values, slopes = np.empty((*x.shape, size)), np.empty((*x.shape, size))
    by_weights = np.zeros((*x.shape, size, size))
    for i, own in enumerate(weights):
        t, rate = np.tanh(x[:, i]), sech_ref(x[:, i]) ** 2
        found = [Polynomial([1]), Polynomial([0, 1])]
        derived = [[Polynomial([0])] * size, [Polynomial([0])] * size]
        for k in range(2, size):
            n = k - 1
            c = (k + n) * (k - n) * n**2 / (k**2 / (4 * n**2 - 1))
            found.append(found[1] * found[-1] - c * own[n] * found[-2])
            derived.append(
                [
                    found[1] * derived[-1][m]
                    - c * own[n] * derived[-2][m]
                    - (c * found[-3] if m == n else 0)
                    for m in range(size)
                ]
            )
        for k in range(size):
            values[:, i, k], slopes[:, i, k] = found[k](t), found[k].deriv()(t) * rate
            for m in range(size):
                by_weights[:, i, k, m] = derived[k][m](t)
    return Phi(values, slopes, (by_weights,))


def gram_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = sum_i u_oi silu(x_bi) + sum_ik c_iok P_k(x_bi), with one recurrence for all inputs."""
    shared = parameters["beta_weights"]
    layer_ref = basis_layer_ref(
        lambda functions: gram_phi_ref,
        weight="grams_basis_weights iok",
        base_weight="base_weights oi",
        params0="beta_weights ip",
    )
    each = np.tile(shared, (x.shape[1], 1))
    passes = layer_ref(x, {**parameters, "beta_weights": each}, grad_y)
    passes.grads["beta_weights"] = passes.grads["beta_weights"].sum(0)
    return passes


def radial_layer_ref(
    bump: Callable, width: Callable[[int], float], grid: str, weight: str, letters: str
) -> Reference:
    """The oracle of a layer of bumps around centres, which are the same for all inputs.

    Args:
        bump: as in `radial_phi_ref`.
        width: of a bump, from the number of the centres.
        grid, weight: the keys of the centres and of the weights.
        letters: how the axes of the weights are merged, `"o ik"` or `"ik o"`.
    """
    reference = basis_layer_ref(
        lambda functions: radial_phi_ref(bump, width(functions)),
        weight=f"{weight} oik" if letters == "o ik" else f"{weight} iko",
        base_weight="base_linear.weight oi",
        bias="base_linear.bias o",
        params0=f"{grid} ip",
    )

    def layer_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
        inputs, centres, own = x.shape[1], parameters[grid], parameters[weight]
        split = (-1, inputs, len(centres)) if letters == "o ik" else (inputs, len(centres), -1)
        each = {grid: np.tile(centres, (inputs, 1)), weight: own.reshape(split)}
        passes = reference(x, {**parameters, **each}, grad_y)
        passes.grads[grid] = passes.grads[grid].sum(0)
        passes.grads[weight] = passes.grads[weight].reshape(own.shape)
        return passes

    return layer_ref


def relu_phi_ref(grid_size: int, order: int) -> PhiReference:
    """(r relu(end - x) relu(x - start))^2, r = 4 grid_size^2 / (order + 1)^2, and derivatives."""
    squared = (4 * grid_size**2 / (order + 1) ** 2) ** 2

    def phi_ref(x: Array, starts: Array, ends: Array) -> Phi:
        since, left = x[..., None] - starts, ends - x[..., None]
        inside = (since > 0) & (left > 0)
        since, left = since * inside, left * inside
        by_start = -2 * squared * since * left**2
        by_end = 2 * squared * since**2 * left
        each = np.eye(since.shape[-1])
        jacobians = tuple(by[..., None] * each for by in (by_start, by_end))
        return Phi(squared * since**2 * left**2, -by_start - by_end, jacobians)

    return phi_ref


def relu_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """The oracle of a layer of order 3; weights of shape (o, 1, k, i) are meant as (o, i, k)."""
    key = "equal_size_conv.weight"
    weight = parameters[key]
    reference = basis_layer_ref(
        lambda functions: relu_phi_ref(functions - 3, 3),
        weight=f"{key} oik",
        bias="equal_size_conv.bias o",
        params0="phase_low ip",
        params1="phase_height ip",
    )
    plain = weight.reshape(len(weight), x.shape[1], -1)
    passes = reference(x, {**parameters, key: plain}, grad_y)
    passes.grads[key] = passes.grads[key].reshape(weight.shape)
    return passes


def wavelet_ref(name: str, z: Array) -> tuple[Array, Array]:
    """A wavelet and its derivative; 0 where the envelope is."""
    z = np.clip(z, -50, 50)
    envelope = np.exp(-(z**2) / 2)
    if name == "mexican_hat":
        norm = 2 / (np.sqrt(3) * np.pi**0.25)
        return norm * (z**2 - 1) * envelope, norm * z * (3 - z**2) * envelope
    if name == "morlet":
        value = np.cos(5 * z) * envelope
        return value, -5 * np.sin(5 * z) * envelope - z * value
    return -z * envelope, (z**2 - 1) * envelope


def wav_kan_ref(name: str, is_training: bool = False) -> Reference:
    """y_bo = BatchNorm of sum_i w_oi psi((x_bi - t_oi) / s_oi), the mean and variance being those
    of the batch in training, otherwise the stored ones."""

    def layer_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
        weight, scale = parameters["wavelet_weights"], parameters["scale"]
        z = (x[:, None] - parameters["translation"]) / scale
        psi, slope = wavelet_ref(name, z)
        total = np.einsum("boi,oi->bo", psi, weight)
        mean, variance = parameters["bn.running_mean"], parameters["bn.running_var"]
        if is_training:
            mean, variance = total.mean(0), total.var(0)
        deviation = np.sqrt(variance + 1e-5)
        unit = (total - mean) / deviation
        back = grad_y * parameters["bn.weight"]
        if is_training:
            back = back - back.mean(0) - unit * (back * unit).mean(0)
        back = back / deviation
        by_z = np.einsum("bo,boi->boi", back, slope * weight / scale)
        return Passes(
            unit * parameters["bn.weight"] + parameters["bn.bias"],
            by_z.sum(1),
            {
                "scale": -(by_z * np.clip(z, -50, 50)).sum(0),
                "translation": -by_z.sum(0),
                "wavelet_weights": np.einsum("bo,boi->oi", back, psi),
                "bn.weight": (grad_y * unit).sum(0),
                "bn.bias": grad_y.sum(0),
            },
        )

    return layer_ref


def silu_phi_ref(x: Array) -> Phi:
    """SiLU as a basis of one function."""
    gate = sigmoid_ref(x)
    return Phi((x * gate)[..., None], (gate * (1 + x * (1 - gate)))[..., None])


def product_ref(
    phi: Phi,
    x: Array,
    grad_y: Array,
    weight: Array,
    scale: Array | None = None,
    base_weight: Array | None = None,
    bias: Array | None = None,
) -> Passes:
    """y_bo = bias_o + sum_i base_io silu(x_bi) + sum_ik scale_io w_kio phi_bik, and the gradients;
    those of the parameters of the basis are each input's own, params0 and so on."""
    scaled = weight if scale is None else weight * scale
    y = np.einsum("bik,kio->bo", phi.values, scaled)
    sums = np.einsum("bik,bo->kio", phi.values, grad_y)
    back = np.einsum("bo,kio->bik", grad_y, scaled)
    grad_x = (back * phi.slopes).sum(-1)
    grads = {"weight": sums if scale is None else sums * scale}
    if scale is not None:
        grads["scale"] = (sums * weight).sum(0)
    if base_weight is not None:
        silu, slope = (part[..., 0] for part in silu_phi_ref(x)[:2])
        y += silu @ base_weight
        grad_x += slope * (grad_y @ base_weight.T)
        grads["base_weight"] = silu.T @ grad_y
    if bias is not None:
        y += bias
        grads["bias"] = grad_y.sum(0)
    for n, jacobian in enumerate(phi.by_params):
        grads[f"params{n}"] = np.einsum("bik,bikp->ip", back, jacobian)
    return Passes(y, grad_x, grads)


def layer_norm_ref(x: Array, weight: Array, bias: Array) -> tuple[Array, Callable]:
    """The normalised x, and from its gradient those of x, weight and bias."""
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    unit = centred / deviation

    def backward(grad: Array) -> tuple[Array, dict[str, Array]]:
        inner = grad * weight
        along = unit * (inner * unit).mean(-1, keepdims=True)
        grad_x = (inner - inner.mean(-1, keepdims=True) - along) / deviation
        return grad_x, {"layernorm.weight": (grad * unit).sum(0), "layernorm.bias": grad.sum(0)}

    return unit * weight + bias, backward


def basis_layer_ref(phi_ref: Callable[[int], PhiReference], **stored: str) -> Reference:
    """The oracle of a layer of any basis, from that of so many of its functions.

    `stored` says what the layer has: `weight="cheby_coeffs iok"` is the published key, and the
    letters of its axes: b, i, o, k. So may scale, base_weight, bias and the parameters of the
    basis, params0 and so on, whose axes are i and p, be stored; a LayerNorm by itself.
    """
    entries = {name: tuple(entry.split()) for name, entry in stored.items()}

    def layer_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
        there = {name: entry for name, entry in entries.items() if entry[0] in parameters}
        plain = {"weight": "kio", "scale": "io", "base_weight": "io", "bias": "o"}
        letters = {name: plain.get(name, "ip") for name in there}
        given = {
            name: np.einsum(f"{own}->{letters[name]}", parameters[key])
            for name, (key, own) in there.items()
        }
        params = [given.pop(name) for name in sorted(given) if name.startswith("params")]
        base = given.pop("base_weight", None)
        inner, backward = x, None
        if "layernorm.weight" in parameters:
            inner, backward = layer_norm_ref(
                x, parameters["layernorm.weight"], parameters["layernorm.bias"]
            )
        phi = phi_ref(len(given["weight"]))(inner, *params)
        y, grad_x, grads = product_ref(phi, inner, grad_y, **given)
        found = {}
        if backward is not None:
            grad_x, found = backward(grad_x)
        if base is not None:
            nothing = Phi(np.zeros((*x.shape, 1)), np.zeros((*x.shape, 1)))
            alone = product_ref(nothing, x, grad_y, np.zeros((1, *base.shape)), base_weight=base)
            y, grad_x = y + alone.y, grad_x + alone.grad_x
            grads["base_weight"] = alone.grads["base_weight"]
        for name, (key, own) in there.items():
            found[key] = np.einsum(f"{letters[name]}->{own}", grads[name])
        return Passes(y, grad_x, found)

    return layer_ref


def efficient_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = sum_i base_oi silu(x_bi) + sum_ik scale_oi w_oik B_k(x_bi)."""
    base, weight = parameters["base_weight"], parameters["spline_weight"]
    scale = parameters.get("spline_scaler", np.ones_like(base))
    knots = parameters["grid"]
    order = knots.shape[1] - weight.shape[2] - 1
    phi = basis_matrix_ref(x, knots, order)
    slope = basis_matrix_ref(x, knots, order, bspline_derivative_ref)
    gate = sigmoid_ref(x)

    grads = {
        "base_weight": np.einsum("bo,bi->oi", grad_y, x * gate),
        "spline_weight": np.einsum("bo,oi,bik->oik", grad_y, scale, phi),
        "spline_scaler": np.einsum("bo,oik,bik->oi", grad_y, weight, phi),
    }
    grad_x = np.einsum("bo,oi,bi->bi", grad_y, base, gate * (1 + x * (1 - gate)))
    grad_x += np.einsum("bo,oi,oik,bik->bi", grad_y, scale, weight, slope)
    y = np.einsum("oi,bi->bo", base, x * gate) + np.einsum("oi,oik,bik->bo", scale, weight, phi)
    return Passes(y, grad_x, {key: grads[key] for key in grads if key in parameters})


def pykan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = sum_i mask_io (base_io silu(x_bi) + sum_k scale_io w_iok B_k(x_bi))."""
    mask, weight = parameters["mask"], parameters["coef"]
    inner = {
        "base_weight": (mask * parameters["scale_base"]).T,
        "spline_weight": weight.transpose(1, 0, 2),
        "spline_scaler": (mask * parameters["scale_sp"]).T,
        "grid": parameters["grid"],
    }
    y, grad_x, grads = efficient_kan_ref(x, inner, grad_y)
    of_base, of_scale = grads["base_weight"].T, grads["spline_scaler"].T
    found = {
        "scale_base": mask * of_base,
        "coef": grads["spline_weight"].transpose(1, 0, 2),
        "scale_sp": mask * of_scale,
        "mask": parameters["scale_base"] * of_base + parameters["scale_sp"] * of_scale,
    }
    return Passes(y, grad_x, found)


def fourier_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = bias_o + sum_ik (a_oik cos(k x_bi) + b_oik sin(k x_bi)), k = 1..G."""
    coeffs = parameters["fouriercoeffs"]
    y = np.zeros((x.shape[0], coeffs.shape[1]))
    grad_x, grad_coeffs = np.zeros_like(x), np.zeros_like(coeffs)
    for g in range(coeffs.shape[3]):
        k = g + 1
        a, b = coeffs[0, :, :, g], coeffs[1, :, :, g]
        cos, sin = np.cos(k * x), np.sin(k * x)
        y += cos @ a.T + sin @ b.T
        grad_x += k * (cos * (grad_y @ b) - sin * (grad_y @ a))
        grad_coeffs[0, :, :, g] = grad_y.T @ cos
        grad_coeffs[1, :, :, g] = grad_y.T @ sin
    grads = {"fouriercoeffs": grad_coeffs}
    if "bias" in parameters:
        y += parameters["bias"]
        grads["bias"] = grad_y.sum(0, keepdims=True)
    return Passes(y, grad_x, grads)


def sine_kan_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """y_bo = bias_o + sum_ig a_oig sin(f_g x_bi + p_ig)."""
    amplitudes, frequencies = parameters["amplitudes"], parameters["freq"]
    angle = x[..., None] * frequencies.ravel() + parameters["phase"][0, 0]
    y = np.einsum("big,oig->bo", np.sin(angle), amplitudes)
    by_angle = np.einsum("bo,oig,big->big", grad_y, amplitudes, np.cos(angle))
    grads = {
        "amplitudes": np.einsum("bo,big->oig", grad_y, np.sin(angle)),
        "freq": np.einsum("big,bi->g", by_angle, x).reshape(frequencies.shape),
    }
    if "bias" in parameters:
        y += parameters["bias"]
        grads["bias"] = grad_y.sum(0, keepdims=True)
    return Passes(y, by_angle @ frequencies.ravel(), grads)


def affine_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """The layer of the perceptron: y = W x + c."""
    weight = parameters["layer1.weight"]
    grads = {"layer1.weight": grad_y.T @ x, "layer1.bias": grad_y.sum(0)}
    return Passes(x @ weight.T + parameters["layer1.bias"], grad_y @ weight, grads)


def mlp_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
    """sigmoid(W2 relu(W1 x + c1) + c2)."""
    first, second = parameters["layer1.weight"], parameters["layer2.weight"]
    before = x @ first.T + parameters["layer1.bias"]
    hidden = np.maximum(before, 0)
    y = sigmoid_ref(hidden @ second.T + parameters["layer2.bias"])
    grad_out = grad_y * y * (1 - y)
    grad_hidden = (grad_out @ second) * (before > 0)
    grads = {
        "layer1.weight": grad_hidden.T @ x,
        "layer1.bias": grad_hidden.sum(0),
        "layer2.weight": grad_out.T @ hidden,
        "layer2.bias": grad_out.sum(0),
    }
    return Passes(y, grad_hidden @ first, grads)


def kan_ref(layer_ref: Reference, widths: Sequence[int]) -> Reference:
    """The network of layers with keys `layers.0.*`, `layers.1.*` and so on."""

    def network_ref(x: Array, parameters: Parameters, grad_y: Array) -> Passes:
        layers: list[dict[str, Array]] = [{} for _ in widths[1:]]
        for key, value in parameters.items():
            _, index, name = key.split(".", 2)
            layers[int(index)][name] = value
        inputs = [x]
        for layer, width in zip(layers, widths[1:], strict=True):
            inputs.append(layer_ref(inputs[-1], layer, np.zeros((len(x), width))).y)
        grads = {}
        for index in reversed(range(len(layers))):
            _, grad_y, layer_grads = layer_ref(inputs[index], layers[index], grad_y)
            grads.update({f"layers.{index}.{name}": grad for name, grad in layer_grads.items()})
        return Passes(inputs[-1], grad_y, grads)

    return network_ref


def adapted_knots_ref(
    samples: Array, grid_size: int, order: int, grid_eps: float, margin: float
) -> Array:
    """The knots of one feature after `update_grid`: between the ends, `grid_eps` times
    uniform knots plus the rest times order statistics; uniform steps beyond the ends."""
    ordered = sorted(samples)
    low, high = ordered[0] - margin, ordered[-1] + margin
    step = (high - low) / grid_size
    inner = []
    for j in range(grid_size + 1):
        statistic = ordered[j * (len(ordered) - 1) // grid_size]
        inner.append(grid_eps * (low + j * step) + (1 - grid_eps) * statistic)
    below = [inner[0] - j * step for j in range(order, 0, -1)]
    above = [inner[-1] + j * step for j in range(1, order + 1)]
    return np.array([*below, *inner, *above])


def regularization_ref(spline_weight: Array, activation: float, entropy: float) -> float:
    """activation * sum(l) - entropy * sum(p log p), with l the mean |w| of an edge and
    p = l / sum(l)."""
    size = np.abs(spline_weight).mean(-1).ravel()
    share = [part / size.sum() for part in size if part > 0]  # 0 log 0 = 0
    return activation * size.sum() - entropy * sum(p * np.log(p) for p in share)
