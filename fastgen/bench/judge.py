"""How close images are to the baseline's, and how often they show what was asked for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from fastgen.embedded.scenes import Scene, Wish, caption, match
from fastgen.embedded.score import load

WINDOW, SIGMA = 11, 1.5
"""The Gaussian of SSIM; with the constants from Wang et al., "Image quality assessment", IEEE TIP 13 (2004)."""


class Judge:
    """Accumulates over all images or texts of an arm."""

    def __init__(self) -> None:
        self.right = 0
        self.judged = 0
        self._errors: list[float] = []
        """Mean squared error of pixels 0..255."""
        self._ssim: list[float] = []
        self._same: list[bool] = []

    def pictures(self, made: dict[str, str], reference: dict[str, str], wishes: dict[str, Wish]) -> None:
        for id, path in made.items():
            if id in wishes:
                self.judged += 1
                self.right += match(wishes[id], load(Path(path))).all
            if id in reference:
                ours, theirs = _pixels(path), _pixels(reference[id])
                self._errors.append(float(((ours - theirs) ** 2).mean()))
                self._ssim.append(ssim(ours, theirs))

    def texts(self, made: dict[str, str], reference: dict[str, str], scenes: dict[str, Scene]) -> None:
        for id, text in made.items():
            if id in scenes:
                self.judged += 1
                self.right += text == caption(scenes[id])
            if id in reference:
                self._same.append(text == reference[id])

    def as_dict(self) -> dict:
        """None means unknown. `psnr_db` is computed from the mean squared error over all images."""
        error = float(np.mean(self._errors)) if self._errors else None
        return {
            "psnr_db": None if error is None else round(10 * math.log10(255**2 / error), 1) if error else math.inf,
            "ssim": round(float(np.mean(self._ssim)), 4) if self._ssim else None,
            "same_text": round(float(np.mean(self._same)), 4) if self._same else None,
            "score": {"right": self.right, "of": self.judged, "share": round(self.right / self.judged, 4)}
            if self.judged
            else None,
        }


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity, in -1..1, of the luma of two images (H, W, 3) of 0..255."""
    a, b = (picture @ np.array([0.299, 0.587, 0.114]) for picture in (first, second))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    map_ = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(map_.mean())


def _blur(values: np.ndarray) -> np.ndarray:
    """The Gaussian mean around each pixel with a complete window, (H - 10, W - 10)."""
    at = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(at**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    windows = np.lib.stride_tricks.sliding_window_view
    return windows(windows(values, WINDOW, 0) @ weights, WINDOW, 1) @ weights


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float64)
