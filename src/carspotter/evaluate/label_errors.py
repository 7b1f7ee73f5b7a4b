"""Labels that are likely to be wrong, by confident learning (arXiv:1911.00068)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cleanlab.filter import find_label_issues

if TYPE_CHECKING:
    from numpy.typing import NDArray


def likely_label_errors(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places of labels that are likely to be wrong, the likeliest first."""
    found = find_label_issues(
        targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return np.asarray(found, np.int64)
