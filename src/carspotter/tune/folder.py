"""The files of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from carspotter.train.run import RunFolder


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study; `with folder.lock():` keeps its workers apart."""

    path: Path

    @property
    def best(self) -> Path:
        """The best trial's recipe, with where it comes from."""
        return self.path / "best.toml"

    @property
    def table(self) -> Path:
        """A row for each trial that came to an end."""
        return self.path / "trials.csv"

    @property
    def report(self) -> Path:
        """One HTML file with figures in it."""
        return self.path / "report.html"

    @property
    def database(self) -> Path:
        """Where the study is kept, if nowhere else is said."""
        return self.path / "study.db"

    def database_url(self) -> str:
        """The same as a URL; braces would be a template's to Optuna."""
        path = str(self.database.resolve()).replace("{", "{{").replace("}", "}}")
        return f"sqlite:///{path}"

    @property
    def identity(self) -> Path:
        """Says which study the folder belongs to."""
        return self.path / "study.json"

    @property
    def runs(self) -> Path:
        """A run folder for each trial that was begun here."""
        return self.path / "trials"

    def run(self, number: int) -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.runs / f"{number:04d}")

    @property
    def lock_file(self) -> Path:
        """Locked by who writes."""
        return self.path / ".lock"

    def lock(self) -> FileLock:
        """A lock that a dying process lets go of."""
        return FileLock(self.lock_file)
