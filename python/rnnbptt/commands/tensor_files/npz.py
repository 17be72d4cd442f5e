"""Archives of arrays: zip files of .npy files, each decompressed no further than it is read."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..shown import shown
from . import npy
from .stored import BadFile, Limits, Stored, Take

if TYPE_CHECKING:
    from collections.abc import Callable

_LOCAL_HEADER = 30  # bytes, before the name
_COMPRESSED_PIECE = 1 << 14
#: Decoders of LZMA allocate what the file asks for; 8 MiB is what Python's writer asks for.
_LARGEST_DICTIONARY = 64 << 20


class _Bounded(io.BufferedIOBase):
    """A file for `zipfile`, which reads the whole directory by one call."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise BadFile(f"has a directory of {size:,} bytes, more than {self._most:,}")
        return self._file.read(self._most if size is None or size < 0 else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


class _Decompressor(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Deflate:
    """`zlib` with the interface of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


class _Stored:
    """No compression."""

    eof = False

    def __init__(self) -> None:
        self._left = b""

    @property
    def needs_input(self) -> bool:
        return not self._left

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        data = self._left + data
        self._left = data[max_length:]
        return data[:max_length]


def stored(file: IO[bytes], size: int, limits: Limits) -> dict[str, Stored]:
    """Return what the members of an archive declare, by their names without ``.npy``.

    Raises
    ------
    BadFile
        If this is no archive, two members have one name, or one is no array.
    """
    try:
        with zipfile.ZipFile(_Bounded(file, limits.header_bytes)) as archive:
            members = archive.infolist()
    except BadFile:
        raise
    except Exception as error:
        # On hostile bytes more comes than the BadZipFile that is documented: errors of struct, of decoding,
        # of seeking, ...
        raise BadFile(f"is not a .npz file: {_why(error)}") from None
    found: dict[str, Stored] = {}
    for info in members:
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise BadFile(f"holds {shown(name)} twice")
        try:
            found[name] = _member(file, size, info, name)
        except BadFile as error:
            raise BadFile(str(error), name) from None
    return found


def _member(file: IO[bytes], size: int, info: zipfile.ZipInfo, name: str) -> Stored:
    # The header is read now and again with the data: an archive may have more members than memory has room
    # for decompressors.
    declared = npy.stored(name, _taken(file, size, info)[0], info.file_size)
    if declared.load is None:
        return declared

    def load() -> Any:
        take, check = _taken(file, size, info)
        again = npy.stored(name, take, info.file_size, check)
        assert again.load is not None
        return again.load()

    return Stored(name, declared.shape, declared.dtype, declared.size, load)


def _taken(file: IO[bytes], size: int, info: zipfile.ZipInfo) -> tuple[Take, Callable[[], None]]:
    """Return what gives a member's bytes, and what checks their sum when all have been taken."""
    start, end = _extent(file, size, info)
    position, checksum = start, 0
    decompressor: _Decompressor | None = None

    def raw(count: int) -> bytes:
        nonlocal position
        file.seek(position)
        data = file.read(min(count, end - position))
        position += len(data)
        return data

    def take(count: int) -> bytes:
        nonlocal checksum, decompressor
        if decompressor is None:
            decompressor = _decompressor(info, raw)
        taken = bytearray()
        while len(taken) < count:
            data = raw(_COMPRESSED_PIECE) if decompressor.needs_input else b""
            starved = decompressor.needs_input and not data
            try:
                piece = b"" if decompressor.eof else decompressor.decompress(data, count - len(taken))
            except MemoryError:
                raise
            except Exception:  # zlib.error, LZMAError, OSError, EOFError: each library has its own
                raise BadFile("cannot be decompressed") from None
            if not piece and (starved or decompressor.eof):
                raise BadFile(f"ends {count - len(taken):,} bytes early")
            taken += piece
        checksum = zlib.crc32(taken, checksum)
        return bytes(taken)

    def check() -> None:
        if checksum != info.CRC:
            raise BadFile("does not have the checksum that the archive gives")

    return take, check


def _extent(file: IO[bytes], size: int, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where a member's bytes start and end."""
    if info.flag_bits & 1:
        raise BadFile("is encrypted")
    if not 0 <= info.header_offset <= size - _LOCAL_HEADER:
        raise BadFile("lies outside the file")
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise BadFile("does not start where the archive says")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = info.header_offset + _LOCAL_HEADER + lengths
    if start + info.compress_size > size:
        raise BadFile("lies outside the file")
    return start, start + info.compress_size


def _decompressor(info: zipfile.ZipInfo, raw: Callable[[int], bytes]) -> _Decompressor:
    if info.compress_type == zipfile.ZIP_STORED:
        return _Stored()
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return _Deflate()
    if info.compress_type == zipfile.ZIP_BZIP2:
        from bz2 import BZ2Decompressor  # Python may be without, as it may be without lzma

        return BZ2Decompressor()
    if info.compress_type == zipfile.ZIP_LZMA:
        return _lzma(raw(9))
    raise BadFile(f"is compressed by method {info.compress_type}, which is unknown")


def _lzma(header: bytes) -> _Decompressor:
    """Return a decoder for what a zip file says first: two bytes of version, two of length, five."""
    import lzma

    if len(header) < 9 or header[2:4] != b"\x05\x00":
        raise BadFile("cannot be decompressed")
    code, dictionary = header[4], int.from_bytes(header[5:9], "little")
    if dictionary > _LARGEST_DICTIONARY:
        raise BadFile(f"needs {dictionary:,} bytes to be decompressed, more than {_LARGEST_DICTIONARY:,}")
    chosen = {"lc": code % 9, "lp": code // 9 % 5, "pb": code // 45, "dict_size": max(dictionary, 4096)}
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, **chosen}])
    except (lzma.LZMAError, ValueError):
        raise BadFile("cannot be decompressed") from None


def _why(error: Exception) -> str:
    text = shown(" ".join(str(error).split()))
    return text or type(error).__name__
