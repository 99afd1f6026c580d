"""Logits, logistic regression, and a logistic calibration of scores (Platt 1999)."""

from __future__ import annotations

import numpy as np

RIDGE = 1e-3  # keeps separable rows finite
LEAST_SLOPE = 0.05  # below, the order is as good as turned around
STEPS = 100


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), clipped away from 0 and 1."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -40, 40))))


def ridge_regression(x: np.ndarray, y: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge-penalised logistic regression under the cross-entropy, by Newton steps.

    Args:
        x: float64 ``[r, f]``, of about unit spread.
        y: in [0, 1]. weight: both float ``[r]``.
        ridge: penalty of the squared weights.

    Returns:
        float64 ``[f + 1]``: the intercept, which is hardly penalised, and the weights.
    """
    z = np.column_stack([np.ones(len(x)), x])
    penalty = np.full(z.shape[1], ridge)
    penalty[0] = 1e-6
    w = np.zeros(z.shape[1])
    w[0] = float(logit(np.array([np.average(y, weights=weight)]))[0])
    for _ in range(30):
        p = sigmoid(z @ w)
        gradient = z.T @ (weight * (p - y)) + penalty * np.where(np.arange(len(w)) == 0, 0, w)
        curvature = weight * np.maximum(p * (1 - p), 1e-6)
        step = np.linalg.solve((z * curvature[:, None]).T @ z + np.diag(penalty), gradient)
        w -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    return w


def calibrate(raw: np.ndarray, y: np.ndarray, weight: np.ndarray, *, usual: float = 1.0) -> tuple[float, float]:
    """Slope and intercept that minimise the cross-entropy of sigmoid(slope * raw + intercept): damped Newton steps.

    ``usual``: the slope where the rows would turn the order around or say nothing of it.
    """
    rate = np.average(y, weights=weight)
    fitted = np.array([usual, float(logit(np.array([rate]))[0] - usual * np.average(raw, weights=weight))])

    def loss(at: np.ndarray) -> float:
        z, away = at[0] * raw + at[1], (at[0] - usual) ** 2 + at[1] ** 2
        return float((weight * (np.logaddexp(0.0, z) - y * z)).sum() + 0.5 * RIDGE * away)

    best = loss(fitted)
    for _ in range(STEPS):
        p = sigmoid(fitted[0] * raw + fitted[1])
        error = weight * (p - y)
        curvature = weight * np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([(error * raw).sum() + RIDGE * (fitted[0] - usual), error.sum() + RIDGE * fitted[1]])
        cross = (curvature * raw).sum()
        hessian = np.array([[(curvature * raw * raw).sum() + RIDGE, cross], [cross, curvature.sum() + RIDGE]])
        step = np.linalg.solve(hessian, gradient)
        while np.abs(step).max() > 1e-10 and loss(fitted - step) > best:
            step = step / 2
        fitted = fitted - step
        best = loss(fitted)
        if np.abs(step).max() < 1e-10:
            break
    slope, intercept = fitted.tolist()
    if not np.isfinite([slope, intercept]).all() or slope <= LEAST_SLOPE:
        return usual, float(logit(np.array([rate]))[0] - usual * np.average(raw, weights=weight))
    return slope, intercept


def level(raw: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The intercept with which the mean of sigmoid(raw + intercept) is that of ``y``: bisection."""
    mean, low, high = np.average(y, weights=weight), -40.0, 40.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.average(sigmoid(raw + middle), weights=weight) < mean else (low, middle)
    return (low + high) / 2
