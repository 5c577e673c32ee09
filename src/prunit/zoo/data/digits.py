"""The 1,797 scans of 8x8 pixels that scikit-learn brings along: the data set that needs no download."""

import numpy as np
import torch

from prunit.batches import Split, stratified
from prunit.errors import MissingExtraError
from prunit.zoo.data.raw import Raw, split_of

TEST_IMAGES = 360  # 20 %


def read() -> Raw:
    """1,437 and 360 images of 1x8x8 in 10 classes; always the same split."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("the data set 'digits'", "scikit-learn", "train") from error
    images, labels = load_digits(return_X_y=True)
    everything = split_of(
        np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8),  # the scans have values 0 to 16
        labels,
    )
    test = stratified(everything.y_B, TEST_IMAGES, seed=0)
    is_train = torch.ones(len(everything), dtype=torch.bool)
    is_train[test] = False
    parts = [Split(everything.x_BCHW[part], everything.y_B[part]) for part in (is_train, test)]
    return Raw(*parts, classes=tuple("0123456789"), flip=False)
