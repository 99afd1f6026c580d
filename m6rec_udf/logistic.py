"""Logits, and a logistic calibration of scores (Platt 1999)."""

from __future__ import annotations

import numpy as np


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), clipped away from 0 and 1."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -40, 40))))


def calibrate(raw: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that minimise the cross-entropy of sigmoid(slope * raw + intercept), by Newton steps."""
    slope, intercept = 1.0, 0.0
    ridge = 1e-3
    for _ in range(50):
        p = sigmoid(slope * raw + intercept)
        error = weight * (p - y)
        curvature = weight * np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([(error * raw).sum() + ridge * (slope - 1), error.sum() + ridge * intercept])
        cross = (curvature * raw).sum()
        hessian = np.array([[(curvature * raw * raw).sum() + ridge, cross], [cross, curvature.sum() + ridge]])
        step = np.linalg.solve(hessian, gradient)
        slope, intercept = slope - step[0], intercept - step[1]
        if np.abs(step).max() < 1e-10:
            break
    if not np.isfinite([slope, intercept]).all() or slope <= 0.05:
        offset = float(logit(np.array([np.average(y, weights=weight)]))[0] - np.average(raw, weights=weight))
        return 1.0, offset
    return float(slope), float(intercept)
