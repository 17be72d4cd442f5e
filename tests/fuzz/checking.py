"""What must come of a call: an answer, or a refusal that names an argument; and nothing else changes."""

from __future__ import annotations

import ast
import dataclasses
import re
import signal
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

from rnnbptt import Gradients, Params

from .functions import Call, functions
from .vocabulary import LAYOUTS, WORDS, Array, plain

REFUSALS = (TypeError, ValueError, OverflowError, MemoryError)
SECONDS = 30
"""That a call may take. Most take a thousandth of one."""

#: What a message may name in the place of an argument: a part that a caller put into it.
PARTS = {
    **dict.fromkeys(("params", "like", "v", "d_params", "direction", "gradients"), Gradients._fields),
    "out": ("hidden", "o"),
    "loss": ("L", "d_o"),
}


class Fault(NamedTuple):
    """What went wrong with a call.

    Attributes
    ----------
    kind : str
        The same for faults that are taken for one: the function, what is wrong, and how, without numbers.
    call : str
        The call, as text that makes it again.
    said : str
        The exception, the warning, or the difference.
    """

    kind: str
    call: str
    said: str


class Hang(BaseException):
    """A call took longer than it may; not an Exception, so that nobody takes it for one of the call's."""


def parsed(text: str) -> Call:
    """Read a call that was written as text."""
    node = ast.parse(text.strip(), mode="eval").body
    assert isinstance(node, ast.Call)
    assert not node.args
    words = {keyword.arg or "": ast.unparse(keyword.value) for keyword in node.keywords}
    return Call(ast.unparse(node.func), words)


def evaluated(call: Call, layouts: dict[str, Any]) -> dict[str, Any]:
    """Make the arguments of a call; words may use arguments before theirs, by name."""
    known: dict[str, Any] = {**WORDS, **layouts}
    values: dict[str, Any] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of words themselves: a cast that overflows
        for name, words in call.arguments.items():
            values[name] = eval(words, known | values)
    return values


def fault_of(call: Call) -> Fault | None:
    """Make a call; return what is wrong with what came of it."""
    function = functions()[call.function]
    try:
        given = evaluated(call, dict(LAYOUTS))
    except Exception:
        return None  # words that make no value: NumPy refuses some of these casts
    before = _snapshot(given)
    what, said, result = _outcome(call, given)
    if what is None and _snapshot(given) != before:
        what, said = "writes to an input", ""
    refused = isinstance(result, BaseException)
    if what is None and refused and not _names_an_argument(str(result), function.names):
        what, said = "names no argument", f"{type(result).__name__}: {result}"
    if what is None and not refused and any(words.startswith("wrong(") for words in call.arguments.values()):
        wrong = [name for name, words in call.arguments.items() if words.startswith("wrong(")]
        what, said = f"accepts any {', '.join(wrong)}", repr(result)
    same = call.arguments.get("rng") != "None"  # or what is drawn is another each time
    if what is None and not refused and same and any(f"{layout}(" in str(call) for layout in LAYOUTS):
        ordinary = evaluated(call, {name: plain(layout) for name, layout in LAYOUTS.items()})
        _, said, expected = _outcome(call, ordinary)
        if content(expected) != content(result):
            what = "depends on the layout"
    if what is None:
        return None
    how = "" if what.startswith(("accepts", "depends")) else re.sub(r"-?[0-9]+", "#", said)[:100]
    return Fault(f"{call.function}: {what}: {how}", str(call), said)


def _outcome(call: Call, given: dict[str, Any]) -> tuple[str | None, str, Any]:
    """Return what is wrong, how, and the result or the refusal."""
    function = functions()[call.function]

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang

    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            # What scikit-learn says of R^2 of a single row.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)  # short fits, which say so
            return None, "", function.call(**given)
    except REFUSALS as error:
        return None, "", error
    except Warning as warning:
        return "warns", f"{type(warning).__name__}: {warning}", None
    except Hang:
        return "takes too long", f"{SECONDS} s", None
    except Exception as error:
        return f"raises {type(error).__name__}", str(error), None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def _names_an_argument(message: str, names: tuple[str, ...]) -> bool:
    known = {part for name in names for part in (name, *PARTS.get(name, ()))}
    return any(re.search(rf"\b{re.escape(name)}\b", message) for name in known)


def _snapshot(given: dict[str, Any]) -> list[Any]:
    """Return the bytes of all arrays that a call must not write to."""
    read = (value for name, value in given.items() if name != "out")
    return [_bytes(array) for value in read for array in _arrays(value)]


def _arrays(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Params | Gradients):
        for _, array in value.items():
            yield array
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _arrays(part)


def _bytes(array: Array) -> Any:
    data = np.ma.getdata(array)
    if data.dtype == np.longdouble:  # which has bytes that mean nothing
        high = data.astype(np.float64)
        return high.tobytes(), (data - high).astype(np.float64).tobytes()
    return data.tolist() if data.dtype.hasobject else data.tobytes()


def content(result: Any) -> Any:
    """Return all numbers of a result, to the bit."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, _bytes(result)
    if isinstance(result, float | np.floating):
        return np.float64(result).tobytes()
    if isinstance(result, Params | Gradients):
        return [(name, content(array)) for name, array in result.items()]
    if isinstance(result, list | tuple):
        return [content(part) for part in result]
    if isinstance(result, dict):
        return {key: content(value) for key, value in result.items()}
    if isinstance(result, BaseException):
        return type(result), str(result)
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {f.name: content(getattr(result, f.name)) for f in dataclasses.fields(result)}
    return result if isinstance(result, int | str | bool | None) else None
