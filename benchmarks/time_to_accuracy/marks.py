"""What a training run is remembered by: its marks, and whether and when it reached the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Rule: TypeAlias = Literal["first epoch", "whole run"]
"""When a contender's clock stops.

`first epoch`: after the first epoch whose accuracy on the test split reaches the target.
`whole run`: after the last epoch, whose number was fixed beforehand; only then is it tested.
"""

Ending: TypeAlias = Literal["finished", "target", "cap"]
"""Why a run ended: by itself, or stopped since it had reached the target, or at the cap."""


@dataclass(frozen=True)
class Mark:
    """Where a run stood after an epoch. What testing on the test split took is left out.

    Attributes:
        epoch: epochs done.
        seconds: wall time since the process began.
        cpu_seconds: processor time of the process and its children since then.
        testing_seconds: wall time spent on the test split up to this epoch's test, left out above.
        accuracy: top-1 on the test split, 0 to 1; None where it was not measured.
    """

    epoch: int
    seconds: float
    cpu_seconds: float
    testing_seconds: float = 0.0
    accuracy: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One contender's run.

    Attributes:
        name: what the report calls it.
        rule: when its clock stopped.
        command: with WORK, DATA and the like in the place of this machine's folders.
        target: top-1 to be reached, 0 to 1.
        cap_minutes: at most so long, testing left out.
        ending: why the run ended.
        end: where it stood then; with `whole run`, `accuracy` is that of the final weights.
        marks: after each epoch.
        about: seed, time of day, machine, load, versions.
    """

    name: str
    rule: Rule
    command: tuple[str, ...]
    target: float
    cap_minutes: float
    ending: Ending
    end: Mark
    marks: tuple[Mark, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> Mark | None:
        """Where the run reached the target; None where it did not."""
        if self.rule == "first epoch":
            return first_reaching(self.marks, self.target)
        done = self.ending == "finished" and (self.end.accuracy or 0.0) >= self.target
        return self.end if done else None

    @property
    def best_accuracy(self) -> float | None:
        """The best that was measured; with `whole run`, that of the final weights."""
        if self.rule == "whole run":
            return self.end.accuracy
        return max((m.accuracy for m in self.marks if m.accuracy is not None), default=None)

    def verdict(self) -> str:
        """In words."""
        if (at := self.reached) is not None:
            assert at.accuracy is not None
            return f"{at.seconds / 60:.1f} minutes, {100 * at.accuracy:.2f} %"
        best = self.best_accuracy
        figure = "no accuracy measured" if best is None else f"best {100 * best:.2f} %"
        return f"not reached in {self.end.seconds / 60:.1f} minutes, {figure}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_dict` gave."""
        return Outcome(
            **{
                **values,
                "command": tuple(values["command"]),
                "end": Mark(**values["end"]),
                "marks": tuple(Mark(**mark) for mark in values["marks"]),
            }
        )


def first_reaching(marks: Sequence[Mark], target: float) -> Mark | None:
    """The first mark whose accuracy is at least `target` (0 to 1); None where none is."""
    return next((m for m in marks if m.accuracy is not None and m.accuracy >= target), None)
