"""Energies of small local posteriors by quadrature: numpy in float64, nothing of the library.

Every function returns ``nβ E[K]`` under ``exp(-nβ K(w) - γ/2 |w|²)``: what a perfect sampler reports as λ.
"""

from collections.abc import Callable, Sequence

import numpy as np

#: One axis of a product rule: its nodes and its weights.
Axis = tuple[np.ndarray, np.ndarray]
_CHUNK = 20_000
#: Nodes of the trapezoidal rule over a standard normal input; spectrally accurate for smooth functions.
_INPUTS = np.linspace(-15.0, 15.0, 121)
_MASSES = np.exp(-0.5 * _INPUTS**2) * (_INPUTS[1] - _INPUTS[0]) / np.sqrt(2 * np.pi)


def panels(reach: float, finest: float, order: int = 16, *, one_sided: bool = False) -> Axis:
    """Gauss-Legendre on panels that double from ``finest`` to ``reach`` on both sides of 0, or on the positive one.

    What a posterior does near 0 and out on the arms of a singularity differs by orders of magnitude in scale: panels
    that double resolve both.
    """
    edges = reach * 2.0 ** -np.arange(int(np.ceil(np.log2(reach / finest))) + 1)
    edges = np.concatenate([[0.0], edges[::-1]])
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half = np.diff(edges)[:, None] / 2
    points = (edges[:-1, None] + half * (1 + nodes)).ravel()
    masses = (half * weights).ravel()
    if one_sided:
        return points, masses
    return np.concatenate([-points[::-1], points]), np.concatenate([masses[::-1], masses])


def average(axes: Sequence[Axis], function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> float:
    """``∫ v e^u / ∫ e^u`` by a product rule; ``function(points (P, d))`` returns ``u`` and ``v``, shape ``(P,)``."""
    grids = np.meshgrid(*[nodes for nodes, _ in axes], indexing="ij")
    points = np.stack([grid.ravel() for grid in grids], axis=1)
    masses = np.ones(1)
    for _, weights in axes:
        masses = np.outer(masses, weights).ravel()
    highest, total, weighted = -np.inf, 0.0, 0.0
    for start in range(0, len(points), _CHUNK):
        logs, values = function(points[start : start + _CHUNK])
        top = max(highest, logs.max())
        share = masses[start : start + _CHUNK] * np.exp(logs - top)
        total = total * np.exp(highest - top) + share.sum()
        weighted = weighted * np.exp(highest - top) + share @ values
        highest = top
    return float(weighted / total)


def energy(axes: Sequence[Axis], loss: Callable[[np.ndarray], np.ndarray], nbeta: float, gamma: float) -> float:
    """``nβ E[K]`` of any loss of a few parameters, ``loss(points (P, d)) -> (P,)``, centre at 0."""

    def look(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies = nbeta * loss(points)
        return -energies - 0.5 * gamma * np.sum(points**2, axis=1), energies

    return average(axes, look)


def crossing(exponents: Sequence[int], nbeta: float, gamma: float) -> float:
    """A normal crossing ``K = Π w_j^{2 k_j}`` by the product rule itself, on the positive orthant."""
    axes = [panels(9.0 / np.sqrt(gamma), 1e-7, 12, one_sided=True)] * len(exponents)
    return energy(axes, lambda points: np.prod(points ** (2 * np.array(exponents)), axis=1), nbeta, gamma)


def tanh_units(hidden: int, nbeta: float, gamma: float) -> float:
    """``f(x) = Σ_h a_h tanh(b_h x)``, true function 0, ``K = ½ E f²`` over a standard normal input, centre 0.

    Given ``b`` the loss is a quadratic form in ``a`` with matrix ``G = E tanh(b_i x) tanh(b_j x)``: the integral over
    ``a`` is Gaussian, ``det(nβ G + γ)^{-1/2}``, with mean energy ``½ tr nβ G (nβ G + γ)^{-1}``. What is left is smooth.
    """
    # signs and order of the units are symmetries: 0 < b_1 < b_2 < ... is enough, in steps, so that units that nearly
    # coincide are resolved
    axes = [panels(9.0 / np.sqrt(gamma), 0.5 / np.sqrt(nbeta), 10, one_sided=True)] * hidden
    return average(axes, lambda steps: _integrated_units(np.cumsum(steps, axis=1), nbeta, gamma))


def _integrated_units(b: np.ndarray, nbeta: float, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    # an even integrand: the positive inputs do, with twice the weight
    positive = _INPUTS > 1e-9
    units = np.tanh(b[:, :, None] * _INPUTS[positive]) * np.sqrt(2 * _MASSES[positive])
    stiffness = nbeta * units @ units.transpose(0, 2, 1)
    values = np.linalg.eigvalsh(stiffness).clip(0.0)
    logs = -0.5 * np.sum(np.log(values + gamma), axis=1) - 0.5 * gamma * np.sum(b**2, axis=1)
    return logs, 0.5 * np.sum(values / (values + gamma), axis=1)


def one_input_network(
    inputs: np.ndarray,
    targets: np.ndarray,
    params: tuple[np.ndarray, np.ndarray],
    nbeta: float,
    gamma: float,
    rule: Axis | None = None,
) -> float:
    """``nβ E[L - L(w*)]`` of ``y = v · tanh(w x)``, one input and one output, up to four units, on given examples.

    ``v`` given ``w`` is Gaussian and integrated in closed form. What is left is smooth in ``w``, and the moments of the
    units that the Gaussian needs are looked up: there are only as many as pairs of nodes. The rule is good to 3e-4.
    """
    first, second = params[0][:, 0], params[1][0]
    nodes, weights = panels(7.0 / np.sqrt(gamma), 1.0, 5) if rule is None else rule
    units = np.tanh(np.outer(nodes, inputs[:, 0]))
    moments, slopes = units @ units.T / len(inputs), units @ targets[:, 0] / len(inputs)
    residual = second @ np.tanh(np.outer(first, inputs[:, 0])) - targets[:, 0]
    constant = 0.5 * nbeta * (np.mean(targets**2) - np.mean(residual**2))

    def look(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stiffness = nbeta * moments[index[:, :, None], index[:, None, :]]
        slope = nbeta * slopes[index]
        precision = stiffness + gamma * np.eye(len(first))
        covariance = np.linalg.inv(precision)
        pull = slope + gamma * second
        mean = np.einsum("pij,pj->pi", covariance, pull)
        energies = 0.5 * np.einsum("pi,pij,pj->p", mean, stiffness, mean) - np.sum(mean * slope, axis=1) + constant
        energies += 0.5 * np.einsum("pij,pji->p", covariance, stiffness)
        logs = 0.5 * np.sum(pull * mean, axis=1) - 0.5 * np.linalg.slogdet(precision)[1]
        return logs - 0.5 * gamma * np.sum((nodes[index] - first) ** 2, axis=1), energies

    return average([(np.arange(len(nodes)), weights)] * len(first), look)


def mixture(free: int, nbeta: float, gamma: float) -> float:
    """A mixture of two unit Gaussians with ``free`` free means against ``N(0, 1)``, centre at equal means 0.

    ``K = E_{x~N(0,1)} [y - log(1 + y)]``, ``y`` the density ratio less one. One free mean: parameters ``(a, b)``, the
    weight being ``|a|/(1 + |a|)``. Two: ``(logit, b, c)``, in coordinates ``logit``, mean and separation, whose
    Jacobian is 1; as ``K ≥ mean²/2``, the mean is confined to a few ``1/√nβ``. Resolved to 1e-6 up to ``nβ = 1e4``.
    """
    reach = 8.0 / np.sqrt(gamma)
    if free == 1:
        axes = [panels(reach, 1e-4, 12, one_sided=True)] * 2

        def single(points: np.ndarray) -> np.ndarray:
            weight = points[:, 0] / (1 + points[:, 0])
            return _divergence(weight, np.zeros(len(points)), points[:, 1])

        return energy(axes, single, nbeta, gamma)
    if free != 2:
        raise ValueError(f"free: got {free}; it is the number of free means, 1 or 2.")
    # exchanging the two components is a symmetry: positive separations are enough
    axes = [
        panels(reach, reach / 4, 6),
        panels(8.0 / np.sqrt(nbeta), 1.0 / np.sqrt(nbeta), 10),
        panels(1.5 * reach, 0.4, 8, one_sided=True),
    ]

    def look(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logit, mean, separation = points.T
        weight = 1 / (1 + np.exp(-logit))
        left, right = mean - weight * separation, mean + (1 - weight) * separation
        energies = nbeta * _divergence(weight, left, right)
        return -energies - 0.5 * gamma * (logit**2 + left**2 + right**2), energies

    return average(axes, look)


def _divergence(weight: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``KL(N(0, 1) ‖ (1-weight) N(left, 1) + weight N(right, 1))``, shape ``(P,)``."""
    shares = np.stack([1 - weight, weight])[:, :, None]
    means = np.stack([left, right])[:, :, None]
    exponents = means * _INPUTS - 0.5 * means**2
    excess = np.sum(shares * np.expm1(exponents), axis=0)
    # to relative precision around 0, where y and its logarithm nearly cancel
    small = np.abs(excess) < 1e-2
    near = np.where(small, excess, 0.0)
    series = sum((-1.0) ** power / power * near**power for power in range(2, 9))
    # far from both means the ratio underflows: its logarithm is taken term by term
    log_ratio = np.logaddexp.reduce(np.log(shares) + exponents, axis=0)
    return np.where(small, series, excess - log_ratio) @ _MASSES
