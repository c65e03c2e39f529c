"""scikit-learn's handwritten digits: 1,797 real grey images of 8x8 pixels, ten classes.

Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), bundled with
scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import torch

from spikingmoe.data.image_data import ImageData, Normalisation, Split, stratified_split

SPLIT_SEED = 20260101
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
INK = 0.5  # a pixel of the binary digits is on above half of the full ink


def load_digits(*, binary: bool = False) -> ImageData:
    """The digits with their fixed, stratified split: 20 % test, 10 % validation, 70 % training.

    Args:
        binary: pixels as 0 or 1, not normalised, for chips whose every message is one bit.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    flat, target = sklearn_digits(return_X_y=True)
    pixels = torch.as_tensor(flat).float().reshape(-1, 1, 8, 8) / 16.0
    labels = torch.as_tensor(target).long()
    test, validation, train = stratified_split(labels, (TEST_SHARE, VALIDATION_SHARE), SPLIT_SEED)
    if binary:
        mean, std = 0.0, 1.0
        images = (pixels > INK).float()
    else:
        mean, std = float(pixels[train].mean()), float(pixels[train].std())
        images = (pixels - mean) / std

    def split(index: torch.Tensor) -> Split:
        return Split(images[index], labels[index])

    return ImageData(
        name="digits-binary" if binary else "digits",
        classes=tuple(str(d) for d in range(10)),
        normalisation=Normalisation((mean,), (std,)),
        train=split(train),
        validation=split(validation),
        test=split(test),
    )
