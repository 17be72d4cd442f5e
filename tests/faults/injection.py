"""The library that makes calls of the system fail, and how it is told which."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

#: Where PyDataMem_SetHandler is in NumPy's table of functions.
_SET_HANDLER = 304

SOURCE = Path(__file__).with_name("shim.cpp")
#: What may fail, by the numbers that the library has for them.
KINDS = {"allocation": 1, "thread": 2, "file write": 3, "write": 4}


def missing() -> str | None:
    """Say what is not here that the library needs, ``None`` where nothing is missing."""
    if shutil.which("c++") is None:
        return "c++ is not installed: apt-get install g++"
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        return "needs the GNU C library"
    if "libasan" in os.environ.get("LD_PRELOAD", "") or "libtsan" in os.environ.get("LD_PRELOAD", ""):
        return "a sanitizer has the place that this library needs"
    return None


def built(folder: Path) -> Path:
    """Compile the library into a folder; return its path."""
    library = folder / "faults.so"
    command = ["c++", "-std=c++17", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def preloaded(library: Path) -> dict[str, str]:
    """Return the environment of a process that has the library."""
    others = os.environ.get("LD_PRELOAD")
    return os.environ | {"LD_PRELOAD": str(library) if not others else f"{library}:{others}"}


class _Allocator(ctypes.Structure):
    _fields_ = (
        ("context", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("malloc", "calloc", "realloc", "free")),
    )


class _Handler(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


_handlers: list[_Handler] = []  # which NumPy goes on using


def count_arrays() -> None:
    """Have NumPy get the data of its arrays from the library, so that they can fail as well."""
    library, python = ctypes.CDLL(None), ctypes.pythonapi
    allocator = _Allocator(None)
    for name in ("malloc", "calloc", "realloc", "free"):
        address = ctypes.cast(getattr(library, f"fault_{name}"), ctypes.c_void_p)
        setattr(allocator, name, address)
    _handlers.append(_Handler(b"rnnbptt_faults", 1, allocator))
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    capsule = python.PyCapsule_New(ctypes.addressof(_handlers[-1]), b"mem_handler", None)
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    table = import_module("numpy._core._multiarray_umath")._ARRAY_API
    functions = python.PyCapsule_GetPointer(table, None)
    set_handler = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))[_SET_HANDLER]
    ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(set_handler)(capsule)


class Fault:
    """How many of a kind there were, once a block of :func:`failing` is over."""

    seen = 0


@contextmanager
def failing(kind: str, which: int, *, onwards: bool = False) -> Iterator[Fault]:
    """Have one of a kind fail in a block, counted from 1, and all after it where that is asked for.

    None fails where `which` is 0; they are counted all the same.
    """
    library = ctypes.CDLL(None)
    fault = Fault()
    library.fault_arm(KINDS[kind], ctypes.c_long(which), int(onwards))
    try:
        yield fault
    finally:
        fault.seen = int(library.fault_disarm())
