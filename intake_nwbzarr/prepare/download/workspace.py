"""The folders of a download: one that is worked in, and the one whose place it takes when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from intake_nwbzarr.errors import DownloadError
from intake_nwbzarr.prepare.download.record import NAME, read_record


@dataclass(frozen=True)
class Workspace:
    """Where a download is written, and where it will be.

    Parameters
    ----------
    folder
        Of the session, once it is complete; what is there stays as it is until then.
    """

    folder: Path

    @property
    def partial(self) -> Path:
        """What is worked in; it stays behind when a download fails, for the next one to go on with."""
        return self.folder.with_name(f"{self.folder.name}.partial")

    @property
    def replaced(self) -> Path:
        """What the folder is called while another takes its place."""
        return self.folder.with_name(f"{self.folder.name}.replaced")

    def prepare(self, location: str) -> None:
        """Make sure that both are, or may become, downloads of a location.

        Raises
        ------
        DownloadError
            When they are something else.
        """
        if self.replaced.exists():
            # Killed between the two renames that exchange them, or while this was removed.
            self.discard_replaced() if self.folder.exists() else self.replaced.rename(self.folder)
        for folder in (self.folder, self.partial):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise DownloadError(f"{folder} is no folder, or a link to one; give another.")
            record = read_record(folder)
            if record is None and folder.is_dir() and any(path.name != NAME for path in folder.iterdir()):
                raise DownloadError(
                    f"{folder} holds things that are no download of {location}; nothing there is touched. "
                    "Give a folder that does not exist yet."
                )
            if record is not None and record.location != location:
                raise DownloadError(
                    f"{folder} is a download of {record.location}, not of {location}; give another folder."
                )
        for parent, folders, names in os.walk(self.partial):
            link = next((name for name in (*folders, *names) if Path(parent, name).is_symlink()), None)
            if link is not None:
                raise DownloadError(
                    f"{Path(parent, link)} is a link, through which a download would write elsewhere; delete "
                    f"{self.partial}."
                )
        self.partial.mkdir(parents=True, exist_ok=True)

    def exchange(self) -> None:
        """Let what was worked in take its place."""
        self.discard_replaced()
        if self.folder.exists():
            self.folder.rename(self.replaced)
        self.partial.rename(self.folder)
        self.discard_replaced()

    def discard_replaced(self) -> None:
        """Remove what was replaced: its record last, which says that it may be removed.

        Raises
        ------
        DownloadError
            When it is no download.
        """
        if not self.replaced.exists():
            return
        if self.replaced.is_dir() and not any(self.replaced.iterdir()):
            self.replaced.rmdir()
            return
        if read_record(self.replaced) is None:
            raise DownloadError(f"{self.replaced} is in the way, and is no download; move it elsewhere.")
        for path in self.replaced.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != NAME:
                path.unlink()
        shutil.rmtree(self.replaced)

    def discard_partial(self) -> None:
        """Remove what was worked in."""
        shutil.rmtree(self.partial)

    def room(self) -> int:
        """Bytes that are free on that disk."""
        return shutil.disk_usage(self.partial).free

    def adopt(self, key: str) -> None:
        """Take an object over from the folder, without copying where the disk can do that."""
        source, target = self.folder / key, self.partial / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    def keep_only(self, keys: set[str]) -> int:
        """Remove all files of what was worked in but these; how many there were."""
        removed = 0
        for parent, folders, names in os.walk(self.partial, topdown=False):
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self.partial).as_posix()
                if key not in keys and key != NAME:
                    path.unlink()
                    removed += 1
            for name in folders:
                with suppress(OSError):
                    Path(parent, name).rmdir()
        return removed


@contextmanager
def local_errors(folder: Path) -> Iterator[None]:
    """Say of an error of the operating system what it means for a download.

    Raises
    ------
    DownloadError
        For any that is no error of this package.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, DownloadError):
            raise
        raise DownloadError(
            f"The download to {folder} cannot be written ({os.strerror(error.errno)}{_at(error)}). What "
            "is there is as it was; what has been fetched is kept beside it, and the same download goes on."
        ) from error


def _at(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
