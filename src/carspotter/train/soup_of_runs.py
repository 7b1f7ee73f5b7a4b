"""One run made of several, by averaging their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carspotter.data import open_data_set
from carspotter.errors import DataError, UsageError
from carspotter.train import checkpoint
from carspotter.train.run import RunFolder
from carspotter.train.soup import best_size, greedy_soup
from carspotter.train.validation import Validation

if TYPE_CHECKING:
    from rich.console import Console


def soup_of_runs(
    runs: Sequence[Path], out: Path, *, data_root: Path | None = None, console: Console
) -> RunFolder:
    """Average runs of one backbone as long as their common validation part likes it.

    Args:
        runs: run folders that were validated on the same pictures (one `split_seed`).
        out: the run folder to write; it holds the best one's recipe and the soup as best.ckpt.
        data_root: the data set, if it has moved.
        console: for messages.

    Raises:
        UsageError: fewer than two runs, a folder that is none, or `out` holds a run.
        DataError: the runs were validated on different pictures, or the data set is another.
        RecipeError: they are of several backbones, sizes at test or lists of classes.
    """
    folders = [RunFolder(run) for run in runs]
    target = RunFolder(out)
    if target.recipe.is_file():
        raise UsageError(f"{out} holds a run already; name another folder")
    _need_common_parts(folders)
    root = data_root or folders[0].data_root()
    data = open_data_set(root)
    named_parts = {part: folders[0].pictures(data, part) for part in ("train", "val")}
    lines: list[str] = []

    def tell(text: str) -> None:
        lines.append(text)
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def leave_out(reasons: Iterable[str]) -> None:
        for reason in reasons:
            if f"left out: {reason}" not in lines:
                tell(f"left out: {reason}")

    first = checkpoint.load_checkpoint(folders[0].best)
    validation = Validation(
        named_parts["val"], first.class_names, first.recipe.area(), None, leave_out
    )
    found = greedy_soup([folder.best for folder in folders], validation.accuracy, tell)
    found = best_size(found, validation.accuracy, tell)
    checkpoint.save_checkpoint(target.best, found)
    target.begin(found.recipe, root, named_parts)  # last: with it, the folder holds a run
    for line in lines:
        target.log(line)
    return target


def _need_common_parts(folders: Sequence[RunFolder]) -> None:
    """Check that all runs were trained and validated on the same pictures."""
    if len(folders) < 2:
        raise UsageError("a soup needs at least two runs")
    for folder in folders:
        if not folder.best.is_file():
            raise UsageError(f"{folder.path} holds no trained run (no {folder.best.name})")
    parts = folders[0].read_split()
    for folder in folders[1:]:
        if folder.read_split() != parts:
            raise DataError(
                f"{folder.path} and {folders[0].path} were validated on different pictures, some "
                "of which the other was trained on; train them with one split_seed"
            )
