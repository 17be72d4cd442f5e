"""Public functions do not trip over the caller's ``numpy.errstate``.

Overflow, underflow, 0/0 are ordinary here: results say inf, 0 or nan, or are computed on another way. Nobody
is warned of what happens on the way, and a caller who has NumPy raise FloatingPointError gets none from here.
"""

from __future__ import annotations

from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Class = TypeVar("Class", bound=type)

#: Special methods that compute something.
_COMPUTING = ("__call__", "__repr__", "__str__")


def quiet(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have a function ignore floating-point errors, whatever the caller's ``numpy.errstate``."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run


def quiet_class(cls: Class) -> Class:
    """Have all methods and properties of a class ignore floating-point errors."""
    for name, member in list(vars(cls).items()):
        if name.startswith("__") and name not in _COMPUTING:
            continue
        if isinstance(member, FunctionType):
            setattr(cls, name, quiet(member))
        elif isinstance(member, property) and member.fget is not None:
            setattr(cls, name, property(quiet(member.fget), member.fset, member.fdel, member.__doc__))
        elif isinstance(member, classmethod):
            setattr(cls, name, classmethod(quiet(member.__func__)))
    return cls
