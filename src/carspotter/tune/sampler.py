"""Which values are tried next."""

from __future__ import annotations

import math
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from carspotter.train.batches import stream_seed
from carspotter.tune.space import SearchSpace

_STREAM = 4
"""Of the seed's streams of random numbers, the one that trials are drawn from."""

_SCHEDULE = frozenset({"epochs", "sizes"})


class SeededTPE(BaseSampler):
    """TPE whose random numbers follow from the study's seed and the number of the trial.

    One generator for each process would have all workers, and every resumed study, begin with the
    same draws. Running trials count as bad ones (`constant_liar`): workers keep apart.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = self._at(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._tpe = self._at(trial.number)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def _at(self, number: int) -> TPESampler:
        seed = stream_seed(self._seed, _STREAM, number) % 2**32
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def make_pruner(space: SearchSpace) -> BasePruner:
    """Stop a trial that is worse than the median of the completed ones at the same epoch.

    Not Hyperband: it splits trials into brackets, each with a sampler of its own that needs ten
    trials to begin, and studies of this kind have a few dozen. Not before a quarter of the run:
    warm-up and averaged weights make the first epochs poor witnesses. Where the schedule is
    searched itself, the same epoch is another moment in every trial, and none is stopped.
    """
    if _SCHEDULE & space.distributions.keys():
        return NopPruner()
    base = space.base
    first = max(math.ceil(base.epochs / 4), math.ceil(base.warmup_epochs) + 1)
    return MedianPruner(n_startup_trials=5, n_warmup_steps=first)
