"""Public data sets, fetched with their hubs' own clients, and verified.

Everything goes into a hidden folder first: the target has the whole data set, or nothing of it. A
call that was cut short goes on with what has come.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from carspotter.data.index import DataSet, fingerprint
from carspotter.data.layouts import open_data_set
from carspotter.data.parquet import is_nameless
from carspotter.errors import CarspotterError, DataError, MissingExtraError, UsageError

Origin: TypeAlias = Literal["huggingface", "kaggle"]

_STAGING = ".carspotter-download"

# The repository holds distorted copies of the test pictures too, several times as large.
_FILES = ("README.md", "data/train-*.parquet", "data/test-*.parquet")


@dataclass(frozen=True)
class Source:
    """Where a data set can be had, and what it must hold.

    Attributes:
        name: what the command line calls it.
        huggingface: a dataset repository of the Hugging Face hub.
        kaggle: a dataset of Kaggle.
        pictures: how many each split has.
        classes: how many classes there are.
        class_counts: `class_counts` of it.
        fingerprint: `fingerprint` of it: which picture has which label.
    """

    name: str
    huggingface: str
    kaggle: str
    pictures: Mapping[str, int]
    classes: int
    class_counts: str
    fingerprint: str


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "stanford-cars": Source(
            name="stanford-cars",
            huggingface="tanganke/stanford_cars",
            kaggle="rickyyyyyyy/torchvision-stanford-cars",
            pictures=MappingProxyType({"train": 8144, "test": 8041}),
            classes=196,
            class_counts="8b9177364b8862fa4cf80fea3b9dc22c8f20fdfd0cde01cc240a7c038ba09ca2",
            fingerprint="0afc1d8cf25da1c7cfa32b067f2b134b0e3cbf0d66736f05158c7d081cff4abe",
        )
    }
)


def class_counts(data: DataSet) -> str:
    """SHA-256 over how many pictures each class has in each split."""
    rows = sorted(Counter((p.split, p.label) for p in data.pictures).items())
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def verify(data: DataSet, source: Source) -> None:
    """Make sure that a data set is what it should be.

    Raises:
        DataError: pictures are missing, or have other labels.
    """
    there = Counter(picture.split for picture in data.pictures)
    if there != source.pictures:
        raise DataError(f"{data.root}: {in_words(there)} instead of {in_words(source.pictures)}")
    classes = len({picture.label for picture in data.pictures})
    if classes != source.classes:
        raise DataError(f"{data.root}: {classes} classes instead of {source.classes}")
    # Without names only the sizes of the classes can be compared.
    nameless = any(map(is_nameless, data.pictures))
    if class_counts(data) != source.class_counts or (
        not nameless and fingerprint(data.pictures) != source.fingerprint
    ):
        raise DataError(f"{data.root}: pictures have other labels than in {source.name}")


def in_words(pictures: Mapping[str, int]) -> str:
    """Numbers of pictures by split: "8,144 train and 8,041 test pictures"."""
    there = [
        f"{pictures[split]:,} {split}" for split in ("train", "val", "test") if split in pictures
    ]
    return f"{' and '.join(there)} pictures"


def download(source: Source, to: Path, origin: Origin, *, progress: bool = False) -> DataSet:
    """Fetch a data set into a folder, or find that it is there.

    Args:
        source: which.
        to: a folder that is empty or not there yet.
        origin: the hub to ask.
        progress: whether to show progress on stderr, where that is a terminal.

    Returns:
        The data set in `to`, verified.

    Raises:
        UsageError: `to` holds something else.
        DataError: the hub cannot be reached, the folder cannot be written, or what came is not
            what it should be. Then `to` has nothing of it, save what the next call goes on with.
        MissingExtraError: the hub's client is not installed.
    """
    staging = to / _STAGING
    with _explained(source, origin, to), _leaving_nothing_empty(to, staging, staging / origin):
        if to.is_dir() and any(not path.name.startswith(".") for path in to.iterdir()):
            data = _already_there(source, to)
        else:
            staging.mkdir(parents=True, exist_ok=True)
            seen = progress and sys.stderr.isatty()
            fetched = _FETCH[origin](source, staging / origin, seen)
            _refuse_others(source, fetched, staging)
            # Folders first: once they are there, so is the data set.
            for path in sorted(fetched.iterdir(), key=lambda path: path.is_file()):
                if not path.name.startswith("."):
                    path.rename(to / path.name)
            data = open_data_set(to)
        shutil.rmtree(staging, ignore_errors=True)
    return data


@contextlib.contextmanager
def _leaving_nothing_empty(*folders: Path) -> Iterator[None]:
    """If the block raises, remove those of the nested folders that it made and left empty."""
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty, or not made in the end
                folder.rmdir()
        raise


def _already_there(source: Source, to: Path) -> DataSet:
    try:
        data = open_data_set(to)
        verify(data, source)
    except DataError as error:
        raise UsageError(
            f"{to} is not empty, and not {source.name} ({error}); name another folder"
        ) from error
    return data


def _refuse_others(source: Source, fetched: Path, staging: Path) -> None:
    try:
        verify(open_data_set(fetched), source)
    except DataError as error:
        raise DataError(
            f"refused, since it is not {source.name}: {error}; remove {staging} to fetch it anew, "
            "or try the other --from"
        ) from error


# --- the hubs ----------------------------------------------------------------------------------


def _from_huggingface(source: Source, folder: Path, progress: bool) -> Path:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    disable_progress_bars()
    folder.mkdir(exist_ok=True)
    api = HfApi(library_name="carspotter")
    # Asked first: without an answer, the hub's client would take a half-filled folder for whole.
    revision = api.dataset_info(source.huggingface).sha
    planned = snapshot_download(
        source.huggingface,
        repo_type="dataset",
        revision=revision,
        local_dir=folder,
        allow_patterns=list(_FILES),
        dry_run=True,
    )
    _need_room(sum(file.file_size or 0 for file in planned if file.will_download), folder)
    if progress:
        enable_progress_bars()
    snapshot_download(
        source.huggingface,
        repo_type="dataset",
        revision=revision,
        local_dir=folder,
        allow_patterns=list(_FILES),
        library_name="carspotter",
    )
    # The client compares sizes alone.
    checked = api.verify_repo_checksums(
        source.huggingface, repo_type="dataset", revision=revision, local_dir=folder
    )
    damaged = [mismatch["path"] for mismatch in checked.mismatches]
    for path in damaged:
        (folder / path).unlink()
    if damaged:
        raise DataError(f"{', '.join(damaged)} came damaged and was removed; run this again")
    return folder


def _from_kaggle(source: Source, folder: Path, progress: bool) -> Path:
    with _kaggle_settings(folder), _kaggle_output(progress):
        try:
            import kagglehub
        except ModuleNotFoundError as error:
            raise MissingExtraError("data download --from kaggle", "train") from error

        try:
            return Path(kagglehub.dataset_download(source.kaggle))
        except (zipfile.BadZipFile, tarfile.TarError, ValueError) as error:
            if isinstance(error, ValueError) and "archive" not in str(error):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError("the archive came damaged and was removed; run this again") from error


@contextlib.contextmanager
def _kaggle_settings(folder: Path) -> Iterator[None]:
    """Let kagglehub work in a folder: it resumes in its cache alone, whose place is a variable."""
    settings = {
        "KAGGLEHUB_CACHE": str(folder.absolute()),
        "DISABLE_KAGGLE_CACHE": "true",  # in a notebook it would mount, not download
        "DISABLE_COLAB_CACHE": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _kaggle_output(progress: bool) -> Iterator[None]:
    """What kagglehub prints, also to stdout, goes to stderr or nowhere."""
    with contextlib.ExitStack() as stack:
        place = sys.stderr
        if not progress:
            place = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(place))
        stack.enter_context(contextlib.redirect_stderr(place))
        yield


_FETCH: Mapping[Origin, Callable[[Source, Path, bool], Path]] = MappingProxyType(
    {"huggingface": _from_huggingface, "kaggle": _from_kaggle}
)


# --- what went wrong ---------------------------------------------------------------------------

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_HUBS: Mapping[Origin, str] = MappingProxyType(
    {"huggingface": "the Hugging Face hub", "kaggle": "Kaggle"}
)
_CREDENTIALS: Mapping[Origin, str] = MappingProxyType(
    {
        "huggingface": "log in with `hf auth login`, or put a token into HF_TOKEN",
        "kaggle": "put a token of kaggle.com/settings into KAGGLE_API_TOKEN",
    }
)


def _need_room(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{size / 1e9:,.1f} GB are to come, and {folder} has room for {free / 1e9:,.1f} GB; "
            "make room, or name another folder"
        )


@contextlib.contextmanager
def _explained(source: Source, origin: Origin, to: Path) -> Iterator[None]:
    try:
        yield
    except CarspotterError:
        raise
    except Exception as error:  # both clients raise whatever their HTTP library raises
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
            chain.append(cause)
        reasons = (_reason(link, source, origin, to) for link in chain)
        first = str(error).strip().partition("\n")[0]
        unknown = f"{_HUBS[origin]}: {type(error).__name__}: {first}; run this again to go on"
        raise DataError(next(filter(None, reasons), unknown)) from error


def _reason(error: BaseException, source: Source, origin: Origin, to: Path) -> str | None:
    """What an error means for the user; None where its type tells nothing."""
    hub = _HUBS[origin]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{hub} wants to know who asks ({status}); {_CREDENTIALS[origin]}"
    if status == 404:
        return f"{hub} has no {getattr(source, origin)}; try the other --from"
    if status is not None:
        return f"{hub} answers with error {status}; run this again later to go on"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"{to}: the disk is full; make room and run this again to go on"
    # By name: which HTTP library the clients use is their affair, and changes.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"TransportError", "RequestException", "ConnectionError", "TimeoutError"}:
        offline = ", since HF_HUB_OFFLINE is set" if "OfflineModeIsEnabled" in names else ""
        return f"{hub} cannot be reached{offline}; run this again to go on"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{to} cannot be written ({error.strerror}); name another folder"
    if "DataCorruptionError" in names:
        return "the archive came damaged and was removed; run this again"
    return None
