"""Makes archives of every kind that is read, for tests."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import py7zr
import zstandard

Files = dict[str, bytes]


def make_zip(path: Path, members: Files) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def make_seven_zip(path: Path, members: Files, *, mode: str = "w", password: str | None = None,
                   header_encryption: bool = False) -> None:  # fmt: skip
    """One solid block; mode "a" adds another one."""
    # a small dictionary: the default's 64 MB take a second to make
    filters = None if password else [{"id": py7zr.FILTER_LZMA2, "preset": 1}]
    with py7zr.SevenZipFile(
        path, mode, filters=filters, password=password, header_encryption=header_encryption
    ) as archive:
        for name, data in members.items():
            archive.writef(io.BytesIO(data), name)


def tar_bytes(members: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _packed_tar(pack: Callable[[bytes], bytes]) -> Callable[[Path, Files], None]:
    return lambda path, members: (path.write_bytes(pack(tar_bytes(members))), None)[1]


MAKERS: dict[str, Callable[[Path, Files], None]] = {
    "a.zip": make_zip,
    "a.7z": make_seven_zip,
    "a.tar": _packed_tar(bytes),
    "a.tar.gz": _packed_tar(gzip.compress),
    "a.tar.bz2": _packed_tar(bz2.compress),
    "a.tar.xz": _packed_tar(lzma.compress),
    "a.TAR.ZST": _packed_tar(zstandard.compress),
}


def archive_bytes(name: str, members: Files, scratch: Path) -> bytes:
    """The bytes of an archive of the kind that the name says."""
    path = scratch / f"scratch-{name}"
    MAKERS[name](path, members)
    data = path.read_bytes()
    path.unlink()
    return data
