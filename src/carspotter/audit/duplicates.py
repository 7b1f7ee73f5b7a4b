"""Pictures that are there more than once: under two labels, in two splits, or just twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from carspotter.audit.near import near_pairs
from carspotter.audit.scan import Seen
from carspotter.data import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Copy:
    """What one picture shares with another.

    Attributes:
        of: the other.
        similarity: 1 where all pixels are equal, else that of their fine detail, below 1.
    """

    of: Picture
    similarity: float

    @property
    def exact(self) -> bool:
        return self.similarity == 1


@dataclass(frozen=True)
class Group:
    """Pictures that show one photo.

    Attributes:
        kind: "exact" (all pixels are equal) or "near" (the same photo, but cut, scaled or
            compressed otherwise).
        pictures: two or more, in the order of the data set.
        same_file: whether their files too are equal, byte by byte.
        similarity: the lowest by which two of them were found, up to 1.
    """

    kind: Literal["exact", "near"]
    pictures: tuple[Picture, ...]
    same_file: bool
    similarity: float

    @property
    def contradictory(self) -> bool:
        """Whether they have more than one label."""
        return len({picture.label for picture in self.pictures}) > 1

    @property
    def leak(self) -> bool:
        """Whether they lie in more than one split."""
        return len({picture.split for picture in self.pictures}) > 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "same_file": self.same_file,
            "similarity": round(self.similarity, 3),
            "contradictory": self.contradictory,
            "leak": self.leak,
            "pictures": [
                {"picture": p.key, "split": p.split, "label": p.label} for p in self.pictures
            ],
        }


@dataclass(frozen=True)
class Duplicates:
    """All copies in a data set.

    Attributes:
        groups: contradictory ones first, of these the leaks first; exact ones before near ones.
        copies: what each picture was found to be a copy of, by its key.
    """

    groups: tuple[Group, ...]
    copies: dict[str, tuple[Copy, ...]]


def find_duplicates(
    pictures: Sequence[Picture],
    seen: Sequence[Seen],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Duplicates:
    """Find exact and near copies.

    Args:
        pictures: those that could be read.
        seen: what was seen of each.
        progress: called with the number done and the total.
    """
    exact: dict[bytes, list[int]] = defaultdict(list)
    for place, one in enumerate(seen):
        exact[one.pixel_digest].append(place)
    sets = list(exact.values())  # each stands for one picture in the search of near ones
    first = [places[0] for places in sets]
    pairs = np.zeros((0, 2), np.int64)
    values = np.zeros(0, np.float32)
    if first:
        pairs, values = near_pairs(
            np.stack([seen[place].thumbnail for place in first]),
            np.stack([seen[place].hashes for place in first]),
            progress,
        )
    values = np.minimum(values, np.float32(0.999))  # 1 is for equal pixels alone
    groups = [_group(pictures, seen, places, 1.0) for places in sets if len(places) > 1]
    groups += [
        _group(pictures, seen, [place for one in joined for place in sets[one]], lowest)
        for joined, lowest in _joined(len(sets), pairs, values)
    ]
    groups.sort(
        key=lambda g: (not g.contradictory, not g.leak, g.kind, -g.similarity, g.pictures[0].key)
    )
    return Duplicates(tuple(groups), _copies(pictures, sets, pairs, values))


def _group(
    pictures: Sequence[Picture], seen: Sequence[Seen], places: Sequence[int], similarity: float
) -> Group:
    places = sorted(places)
    return Group(
        "exact" if similarity == 1 else "near",
        tuple(pictures[place] for place in places),
        len({seen[place].file_digest for place in places}) == 1,
        similarity,
    )


def _joined(
    count: int, pairs: NDArray[np.int64], values: NDArray[np.float32]
) -> list[tuple[list[int], float]]:
    """Pairs that hang together, as lists, with the lowest similarity in each."""
    graph = coo_array((values, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, of = connected_components(graph, directed=False)
    members: dict[int, set[int]] = defaultdict(set)
    lowest: dict[int, float] = defaultdict(lambda: 1.0)
    for (one, other), value in zip(pairs.tolist(), values.tolist(), strict=True):
        part = int(of[one])
        members[part] |= {one, other}
        lowest[part] = min(lowest[part], value)
    return [(sorted(members[part]), lowest[part]) for part in members]


def _copies(
    pictures: Sequence[Picture],
    sets: Sequence[Sequence[int]],
    pairs: NDArray[np.int64],
    values: NDArray[np.float32],
) -> dict[str, tuple[Copy, ...]]:
    """What each picture is a copy of: exact ones first, then the nearest."""
    near: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for (one, other), value in zip(pairs.tolist(), values.tolist(), strict=True):
        near[one].append((other, value))
        near[other].append((one, value))
    found = {}
    for number, places in enumerate(sets):
        others = [
            Copy(pictures[place], value)
            for other, value in sorted(near[number], key=lambda x: -x[1])
            for place in sets[other]
        ]
        for place in places:
            same = [Copy(pictures[other], 1.0) for other in places if other != place]
            if copies := (*same, *others):
                found[pictures[place].key] = copies
    return found
