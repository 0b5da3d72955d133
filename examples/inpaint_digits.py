"""Inpaint and denoise images of 8 x 8 pixels: a rectangle is a mask like any other.

Run with a path to say where the picture goes: `python examples/inpaint_digits.py digits.png`.
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.datasets import load_digits

from tabmae import TabMAE

N_SHOWN = 10


def main(path: str = "inpaint_digits.png") -> None:
    images = load_digits().data / 16  # (1797, 64), grey from 0 to 1
    train, test = images[:400], images[1500:1600]
    rng = np.random.default_rng(0)

    squares = np.zeros((len(test), 8, 8), dtype=bool)
    for square, top, left in zip(squares, *rng.integers(0, 5, size=(2, len(test))), strict=True):
        square[top : top + 4, left : left + 4] = True
    hidden = squares.reshape(test.shape)
    masked = np.where(hidden, np.nan, test)
    quick = TabMAE(experts=("gaussian",), max_epochs=15, random_state=0)  # a forest for each pixel takes longer
    painter = clone(quick).set_params(mask="block", feature_shape=(8, 8))
    inpainted = painter.fit(train).transform(masked)

    # Fitted on noisy images only: the other pixels foretell the grey of a pixel, not its noise.
    noisy_train, noisy = (part + rng.normal(scale=0.25, size=part.shape) for part in (train, test))
    denoised = quick.fit(noisy_train).reconstruct(noisy)

    mean = np.broadcast_to(train.mean(axis=0), test.shape)
    print("Root mean squared error, grey from 0 to 1:")
    print(f"hidden pixels: mean image {rmse(mean, test, hidden):.3f}, inpainted {rmse(inpainted, test, hidden):.3f}")
    print(f"all pixels: noisy {rmse(noisy, test):.3f}, denoised {rmse(denoised, test):.3f}")
    draw({"original": test, "masked": masked, "inpainted": inpainted, "noisy": noisy, "denoised": denoised}, path)


def rmse(predicted: np.ndarray, target: np.ndarray, where: np.ndarray | bool = True) -> float:
    return float(np.sqrt(np.mean((predicted - target) ** 2, where=where)))


def draw(rows: dict[str, np.ndarray], path: str) -> None:
    figure = Figure(figsize=(N_SHOWN, len(rows) + 0.2), layout="constrained")
    axes = figure.subplots(len(rows), N_SHOWN, subplot_kw={"xticks": [], "yticks": [], "facecolor": "tab:orange"})
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    figure.savefig(path, dpi=120)
    print("Picture:", path)


if __name__ == "__main__":
    main(*sys.argv[1:])
