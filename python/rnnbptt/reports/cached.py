"""Properties that are computed once per object, without a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from ..engine.floating_point import quiet

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class cached(Generic[Value]):  # a decorator, like `property`
    """A property that is computed when it is first asked for, and kept with the object.

    Up to Python 3.11 `functools.cached_property` holds one lock for all objects of a class while it computes:
    calls on several threads wait for each other, and a fork in the meantime leaves its child waiting forever.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        """Compute the value; from then on it is found in the object before this is asked."""
        if instance is None:
            return self
        # Two threads may compute it; both get the value that was kept first.
        value: Value = vars(instance).setdefault(self._name, quiet(self._compute)(instance))
        return value
