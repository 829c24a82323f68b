"""Pixels that resemble photographs, made from a seed.

A model answers white noise with nearly the same scores each time, and black or white with nothing
that tells its channels apart. Photographs are smooth in the large and detailed in the small (their
spectrum falls with the frequency), their channels go together, and there are edges in them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def pictures(images: int, height: int, width: int, channels: int, *, seed: int = 0) -> Pixels:
    """uint8 [images, height, width, channels]; the same for the same arguments."""
    random = np.random.default_rng(seed)
    return np.stack([_picture(random, height, width, channels) for _ in range(images)])


def _picture(random: np.random.Generator, height: int, width: int, channels: int) -> Pixels:
    light = _clouds(random, height, width)
    light += 2 * (_clouds(random, height, width) > random.uniform(-0.5, 0.5))  # edges
    colours = [light + 0.5 * _clouds(random, height, width) for _ in range(channels)]
    stacked = np.stack(colours, axis=-1)
    low, high = np.percentile(stacked, [2, 98])
    # Each of its own brightness, and some of it too dark or too bright to tell apart.
    scaled = (stacked - low) / max(high - low, 1e-6) * random.uniform(120, 260)
    return np.asarray(np.clip(scaled + random.uniform(-20, 60), 0, 255), np.uint8)


def _clouds(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """Smooth noise [height, width] of mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    phase = np.exp(2j * np.pi * random.random(frequency.shape))
    noise = np.fft.irfft2(phase / frequency**1.2, s=(height, width))
    return np.asarray(noise / max(float(noise.std()), 1e-9), np.float64)
