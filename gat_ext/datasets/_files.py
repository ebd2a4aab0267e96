"""Finds a data set's files, in the user's folder or in the cache, and downloads them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from gat_ext.datasets._optional import require

LARGEST_MEMBER = 2**26  # bytes that a member of a zip may always unpack to
LARGEST_RATIO = 32  # and how many times what it takes in the zip: text of numbers takes 3 to 10


def in_a_line(error: Exception) -> str:
    """Type and text of an error, cut to 300 characters: some quote the whole file."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


@dataclass(frozen=True)
class ZipMember:
    """A file or a folder inside a zip file, which is read without unpacking it.

    :class:`zipfile.Path` lists every parent of every member first, which takes memory beyond any
    bound of the file's size.

    Attributes:
        archive: the zip file.
        name: "" for its root.
    """

    archive: zipfile.ZipFile
    name: str = ""

    def __truediv__(self, name: str) -> ZipMember:
        return ZipMember(self.archive, f"{self.name}/{name}" if self.name else name)

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.name}"

    def is_file(self) -> bool:
        """True if the zip has a member of that name."""
        return self.name in self.archive.NameToInfo

    def read_bytes(self) -> bytes:
        """The content, in memory in proportion to the zip, or ``LARGEST_MEMBER`` bytes.

        Raises:
            ValueError: It is damaged, encrypted, compressed by another method than Deflate, or
                unpacks to more.
        """
        info = self.archive.getinfo(self.name)
        by_hand = "if you trust it, unpack it by hand and pass the folder as root"
        if info.flag_bits & 1:
            raise ValueError(f"{self} is encrypted; {by_hand}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{self} is compressed by method {info.compress_type}, expected Deflate; {by_hand}"
            )
        packed, size = info.compress_size, os.path.getsize(str(self.archive.filename))
        if packed > size:  # zipfile would allocate as much
            raise ValueError(
                f"{self} is damaged: it takes {packed} bytes of the zip, which has {size}; "
                "download the zip again from its source"
            )
        limit = max(LARGEST_MEMBER, LARGEST_RATIO * packed)
        if info.file_size > limit:  # zipfile reads no more than it says
            raise ValueError(
                f"{self} unpacks to {info.file_size} bytes, expected at most {limit}, which is "
                f"{LARGEST_RATIO} times its size in the zip, or {LARGEST_MEMBER}; {by_hand}"
            )
        try:
            return self.archive.read(info)
        except MemoryError:
            raise
        except Exception as error:  # a damaged zip can raise anything
            raise ValueError(
                f"{self} is damaged: {in_a_line(error)}; download the zip again from its source"
            ) from error


Folder = Path | ZipMember


def _opened(archive: Path) -> ZipMember:
    """The root of a zip file; ValueError where it is not one."""
    try:
        return ZipMember(zipfile.ZipFile(archive))
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged zip can raise anything
        raise ValueError(
            f"{archive} is not a valid zip file: {in_a_line(error)}; download it again from its "
            "source"
        ) from error


def _raw_folders(root: Path, name: str) -> list[Path]:
    """Where PyG has the files: ``raw`` of ``root``, or of its folder of that name in any case."""
    folders = [root]
    with suppress(OSError):  # root is missing, is a file, or cannot be listed
        folders += sorted(path for path in root.iterdir() if path.name.lower() == name.lower())
    return [folder / "raw" for folder in folders]


def find_folder(
    root: Path, family: str, *formats: Sequence[str], pyg_name: str | None = None
) -> Folder:
    """The folder that has all files of one of the formats.

    It is ``root``, ``root/family``, inside ``family.zip`` in one of them, or where PyG has the
    files: ``root/raw`` or ``root/pyg_name/raw``.

    Args:
        root: Where to look.
        family: Name of the family, such as ``ppi``, of its folder below ``root`` and of its zip
            file, ``ppi.zip``. A parent folder, as in ``tudataset/NCI1``, is optional on disk.
        *formats: The file names of each format.
        pyg_name: PyG's name of the data set, in any case; None for the last part of ``family``.

    Raises:
        FileNotFoundError: No format is complete.
        ValueError: ``<family>.zip`` is not a zip file.
    """
    name = PurePath(family).name
    folders = list(dict.fromkeys([root, root / name, root / family]))
    pyg_name = name if pyg_name is None else pyg_name
    places: list[Folder] = [*folders, *_raw_folders(root, pyg_name)]
    for folder in dict.fromkeys([*folders, (root / family).parent]):
        archive = folder / f"{name}.zip"
        if archive.is_file():
            inside = _opened(archive)
            places += [inside, inside / name]
    lacks = [
        [name for name in format if not (place / name).is_file()]
        for place in places
        for format in formats
    ]
    fewest = min(lacks, key=len)
    if fewest:
        raise FileNotFoundError(
            f"{root} has no {', '.join(fewest)}; expected in it, in {root / family}, or in "
            f"{root / pyg_name / 'raw'}. Leave root out to download the files"
        )
    return places[lacks.index(fewest) // len(formats)]


def local_folder(
    root: Path | None, family: str, *formats: Sequence[str], pyg_name: str | None = None
) -> Folder | None:
    """``find_folder`` in ``root``, else in the folder that ``GAT_EXT_DATA`` names.

    Returns:
        The folder; None if ``root`` is None and ``GAT_EXT_DATA`` is not set or lacks a file.

    Raises:
        FileNotFoundError: ``root`` is given and lacks a file.
        ValueError: As ``find_folder``.
    """
    if root is not None:
        return find_folder(root, family, *formats, pyg_name=pyg_name)
    shared = os.environ.get("GAT_EXT_DATA")
    if not shared:
        return None
    try:
        return find_folder(Path(shared), family, *formats, pyg_name=pyg_name)
    except FileNotFoundError:
        return None


def cache_folder() -> Path:
    """The folder of downloads: ``GAT_EXT_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("GAT_EXT_CACHE") or require("pooch").os_cache("gat_ext"))


def fetch(url: str, sha256: str | None, path: Path) -> Path:
    """Download ``url`` to ``path``, unless the file exists with the given digest.

    Args:
        url: The http or https address.
        sha256: Digest of the content, 64 hexadecimal digits; None accepts any content.
        path: The file; written only when the download is complete and the digest matches.

    Returns:
        ``path``.

    Raises:
        ConnectionError: The server does not answer, or answers with an error.
        ValueError: The content has another digest.
        ImportError: pooch is missing.
    """
    pooch = require("pooch")
    failures = require("requests").exceptions.RequestException
    by_hand = "or download the file by hand and pass its folder as root"
    try:
        pooch.retrieve(
            url,
            known_hash=None if sha256 is None else f"sha256:{sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except failures as error:
        raise ConnectionError(
            f"cannot download {url}: {error}. Try again later, {by_hand}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url} does not have the expected content ({error}). Try again, {by_hand}"
        ) from error
    return path
