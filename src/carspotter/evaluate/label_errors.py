"""Labels that are likely to be wrong, by confident learning (arXiv:1911.00068)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cleanlab.filter import find_label_issues

if TYPE_CHECKING:
    from numpy.typing import NDArray


_METHOD = "low_self_confidence"
"""As many as confident learning counts wrong labels, those with the least probable ones.

Of cleanlab's ways to choose, this found most of the labels that were broken at random, with the
fewest others: see docs/experiments.md.
"""


def likely_label_errors(
    probabilities: NDArray[np.floating], targets: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Find labels that are likely to be wrong.

    The predictions should be of pictures that the model was not trained on: of its own training
    pictures it has learnt the wrong labels too.

    Args:
        probabilities: (N, classes) that a model gives each picture; each row sums to 1.
        targets: (N,) class numbers of the labels, 0 to classes - 1; classes may be missing.

    Returns:
        Places of the suspects among the N, most suspicious first.

    Raises:
        ValueError: probabilities that are no numbers, or lie outside of 0 to 1, or shapes or class
            numbers that do not fit.
    """
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(f"shapes do not fit: {probabilities.shape} and {targets.shape}")
    if not np.isfinite(probabilities).all():
        raise ValueError("there are probabilities that are no numbers (NaN or infinite)")
    if ((probabilities < 0) | (probabilities > 1 + 1e-3)).any():
        raise ValueError("there are probabilities outside of 0 to 1")
    if ((targets < 0) | (targets >= probabilities.shape[1])).any():
        raise ValueError(f"there are labels outside of 0 to {probabilities.shape[1] - 1}")
    if len(np.unique(targets)) < 2:
        return np.zeros(0, np.int64)  # with one class there is nothing to take it for
    found = find_label_issues(
        np.asarray(targets, np.int64),
        np.asarray(probabilities, np.float64),
        filter_by=_METHOD,
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return np.asarray(found, np.int64)
