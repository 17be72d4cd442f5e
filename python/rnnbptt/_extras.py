"""The packages of extras: imported when something needs them, or an error that says what is wrong."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

#: The least version of every package that some extra asks for, as in pyproject.toml, by its name in imports.
LEAST = {
    "jax": "0.10",
    "joblib": "1.3",
    "matplotlib": "3.8",
    "rich": "13",
    "scipy": "1.11",
    "sklearn": "1.6",
    "threadpoolctl": "3.1",
    "torch": "2.5",
    "tqdm": "4.60",
}
#: What packages are called where that is not the name they are imported by.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def need(user: str, extra: str, *names: str) -> None:
    """Import packages, or their modules, that `user` cannot do without.

    Parameters
    ----------
    user : str
        What needs them: the subject of messages.
    extra : str
        The extra that brings them.
    names : str
        Such as "matplotlib.figure".

    Raises
    ------
    ModuleNotFoundError
        If a package is not installed.
    ImportError
        If one cannot be imported although it is there, or is older than needed.
    """
    hint = f"pip install 'rnnbptt[{extra}]'"
    for name in names:
        package = name.partition(".")[0]
        called = _DISTRIBUTIONS.get(package, package)
        try:
            found = _version(import_module(package), called)
            if not [] < _numbers(found) < _numbers(LEAST[package]):
                import_module(name)
                continue
        except Exception as error:  # of any type: what is broken may raise anything
            missing = isinstance(error, ModuleNotFoundError) and error.name == package
            state = "not installed" if missing else f"installed but cannot be imported: {error}"
            kind = ModuleNotFoundError if missing else ImportError
            message = f"{user} needs {called}, which is {state}" + (f": {hint}" if missing else "")
            raise kind(message, name=package) from error
        raise ImportError(
            f"{user} needs {called} {LEAST[package]} or later, not {found}: {hint}", name=package
        )


def _version(package: ModuleType, called: str) -> str:
    """Return what a package says its version is; nothing where it does not say."""
    said = getattr(package, "__version__", None)
    if isinstance(said, str):
        return said
    from importlib import metadata  # slow to import

    try:
        return metadata.version(called)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(text: str) -> list[int]:
    """Return the numbers of a version, up to where it says what kind of release it is."""
    found = re.match(r"\d+(\.\d+)*", text)
    return [int(number) for number in found[0].split(".")] if found else []
