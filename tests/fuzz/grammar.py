"""How calls are drawn: a good one of a random function, then one or two of its arguments spoilt."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnbptt.engine.losses import LOSSES

from . import vocabulary
from .functions import Call, functions
from .vocabulary import LAYOUTS

# --- words for what is no array -----------------------------------------------------------------------------


class Words(NamedTuple):
    """What may stand for arguments of a kind."""

    wrong: list[str]
    """Must be refused."""
    odd: list[str]


_TABLE = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
GOOD: dict[str, list[str]] = _TABLE["good"]
NO_NUMBER: list[str] = _TABLE["lists"]["no_number"]


def _spelled_out(words: list[str]) -> list[str]:
    lists = {f"{{{name}}}": entries for name, entries in _TABLE["lists"].items()}
    return [word for entry in words for word in lists.get(entry, [entry])]


@cache
def words_for(argument: str) -> Words:
    """Return the words of the kind that an argument is of; of the last kind where none has its name."""
    kinds = _TABLE["kind"]
    kind = next((kind for kind in kinds if argument in kind["arguments"]), kinds[-1])
    return Words(_spelled_out(kind["wrong"]), _spelled_out(kind["odd"]))


# --- one draw -----------------------------------------------------------------------------------------------


class Draw:
    """One draw: sizes that fit together, and words for every argument of them."""

    def __init__(self, rng: np.random.Generator, function: str) -> None:
        self.rng, self.function = rng, function
        self.T, self.B = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        self.d, self.h, self.q = (int(n) for n in rng.integers(1, 5, 3))
        self.terms = int(rng.integers(2))
        self.dtype = "f4" if rng.random() < 0.25 else "f8"
        self.loss = self.one([None, *LOSSES])
        self.batch = self.one(["with", "with", "without", "first"])
        if function.split(".")[0] in vocabulary.OBJECTS:
            self.d, self.h, self.q, self.terms, self.dtype = 2, 3, 2, 1, "f8"
        if function.startswith("fitted"):
            self.batch = "without"

    def one(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def word(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    # Shapes.

    def series(self, *features: int) -> tuple[int, ...]:
        lanes = {"with": (self.T, self.B), "without": (self.T,), "first": (self.B, self.T)}[self.batch]
        return (*lanes, *features)

    def lanes(self, *features: int) -> tuple[int, ...]:
        return features if self.batch == "without" else (self.B, *features)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape that an array of this name has, None where the argument is no such array."""
        d, h, q = self.d, self.h, self.q
        size = h * (d + h + q) + self.terms * (h + q + q * d)
        shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("x", "d_x"), self.series(d)),
            **dict.fromkeys(("h0", "d_h0", "d_hT", "s0"), self.lanes(h)),
            "d_o": self.series(q),
            "v": self.series(h),
            "weights": self.series(),
            "W": (h, h),
            "W_hx": (h, d),
            "W_hh": (h, h),
            "W_qh": (q, h),
            "b_h": (h,),
            "b_q": (q,),
            "W_qx": (q, d),
            "theta": (size,),
            "X": (self.T, d),
            "X_future": (self.T, d),
            "sample_weight": (self.T,),
        }
        if self.function == "objective.hessp" and name == "v":
            return (size,)
        if name == "y" and (self.loss is None or not LOSSES[self.loss].labels):
            return self.series(q)
        return shapes.get(name)

    # Words that fit.

    def good(self, name: str) -> str | None:
        """Return words for an argument that fits the others, None where it is better left out."""
        shape = self.shape(name)
        model = f"({self.d}, {self.h}, {self.q}, {self.terms}, {self.dtype!r})"
        if name in ("params", "like"):
            return f"P{model}"
        if name in ("d_params", "direction", "gradients") or (name == "v" and self.function.endswith("hvp")):
            return f"G{model}"
        if shape is not None:
            words = self.laid(self.array(shape))
            return words.replace("normal(", "shares(") if "weight" in name else words
        if name == "y":
            return f"whole({_sizes(self.series())}, below={self.q})"
        if name == "loss":
            return None if self.loss is None else repr(self.loss)
        if name == "batch_first":
            return "True" if self.batch == "first" else None
        if name == "mask":
            return f"flags({_sizes(self.series())})"
        if name == "lengths":
            return str(self.T) if self.batch == "without" else str([self.T, *(1 for _ in range(self.B - 1))])
        if name == "out":
            return self.result()
        if name == "method":
            return self.word(self.methods())
        return self.word(GOOD[name]) if name in GOOD else None

    def array(self, shape: tuple[int, ...]) -> str:
        return f"normal({_sizes(shape)}{'' if self.dtype == 'f8' else f', dtype={self.dtype!r}'})"

    def laid(self, words: str) -> str:
        """Return the words, in one call of five with a layout or a dtype that is cast safely."""
        if self.rng.random() < 0.8:
            return words
        if self.rng.random() < 0.2 and self.dtype == "f8":
            return words[:-1] + f", dtype={self.one(['f4', 'f2'])!r})"
        return f"{self.one(list(LAYOUTS))}({words})"

    def methods(self) -> tuple[str, ...]:
        if self.function == "state_gradients":
            return ("'recursion'", "'closed_form'", "'scan'")
        if self.function.endswith("choose"):
            return ("'sliding'", "'chunked'", "'randomized'")
        if "numerical" in self.function or "directional" in self.function:
            return ("'complex_step'", "'differences'")
        return ("'recursion'", "'closed_form'", "'forward_mode'")

    def result(self) -> str | None:
        """Return words for ``out=``."""

        def empty(*features: int) -> str:
            return f"empty({_sizes(self.series(*features))}, dtype={self.dtype!r})"

        if self.function == "matrix_powers":
            return None
        return f"({empty(self.h)}, {empty(self.q)})" if self.function == "forward" else empty(self.h)

    # Words that do not.

    def spoilt(self, name: str) -> str:
        """Return words for something else in the place of an argument."""
        if self.shape(name) is not None and not self.function.endswith("hvp"):
            wrong, odd = self.spoilt_array(name)
        elif name == "out":
            wrong, odd = self.spoilt_result()
        elif name == "mask":
            sizes = _sizes(self.series())
            wrong = ["3", "'mask'", "{}", f"normal({sizes})", f"whole({sizes})", "[True, None]", "10**5000"]
            odd = [f"~flags({sizes})", f"np.zeros(({sizes},), bool)", f"flags({sizes}, 1)", "True", "None"]
        else:
            wrong, odd = words_for(name)
        # The estimator converts what scikit-learn's estimators do.
        marked = wrong if self.function.startswith("fit") else [f"wrong({word})" for word in wrong]
        return self.word([*marked, *odd])

    def spoilt_array(self, name: str) -> Words:
        shape = self.shape(name)
        assert shape is not None
        words, sizes = self.good(name) or "", _sizes(shape)
        axis = int(self.rng.integers(len(shape)))
        longer = _sizes(n + (i == axis) for i, n in enumerate(shape))
        without = _sizes(0 if i == axis else n for i, n in enumerate(shape))
        wrong = [
            *(f"{words} * 1j", f"{words}.astype(object)", f"{words}.astype('U9')", f"np.ma.array({words})"),
            *(f"np.zeros(({sizes},), 'M8[s]')", f"np.zeros(({sizes},), 'm8[D]')", f"{words}.astype('S9')"),
            *(f"np.zeros(({sizes},), [('a', 'f8')])", f"np.ma.masked_all(({sizes},))"),
            f"{words}.astype('O') * 10**5000",
        ]
        entry = self.one(["nan", "inf", "-inf", "1e38", "5e-324", "0.0", "1e308"])
        factor = self.one(["1e300", "1e-300", "1e30", "0", "-1", "nan"])
        dtype = self.one(["f2", "f4", "i1", "u8", "?", ">f8", "g"])
        odd = [
            *(f"normal({longer})", f"normal({without})", f"normal({sizes}, seed=1)", f"np.zeros(({sizes},))"),
            *(f"{words}[..., None]", f"{words}[0]", f"spiked({words}, {entry})", f"{words} * {factor}"),
            *(f"{words}.tolist()", f"{words}.astype({dtype!r})", f"{self.one(list(LAYOUTS))}({words})"),
            *(f"[{words}]", f"iter({words})", f"np.broadcast_to({words}, ({sizes},))"),
            *("1.5", "nan", "'a'", "b'a'", "10**30", "10**5000", "None"),
        ]
        return Words([*NO_NUMBER[:-1], *wrong], odd * 2)

    def spoilt_result(self) -> Words:
        good = self.result() or "empty(2, 3)"
        wrong = ["3", "'out'", "[]", "{}", "(None,)", "normal(1, 1, 1).astype('i1')", "10**5000", "nan"]
        if good.startswith("("):
            return Words([*wrong, "(3, 4)", f"({good}, 1)"], [good, "(None, None)", f"list({good})"])
        wrong += [f"read_only({good})", f"big_endian({good})", f"misaligned({good})", f"{good}[..., None]"]
        wrong += [f"np.ma.array({good})", f"{good}.tolist()"]
        first = functions()[self.function].names[1]
        if first in ("v", "d_o"):
            wrong += [f"{first}[:]", f"{first}[::-1]"]
        return Words(wrong, [good, "None"])


def _sizes(shape: Iterable[int]) -> str:
    return ", ".join(map(str, shape))


# --- calls --------------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator) -> Call:
    """Draw a call: nine of ten with one or two arguments that may not fit."""
    names = list(functions())
    shares = np.array([functions()[name].share for name in names])
    return drawn(rng, names[int(rng.choice(len(names), p=shares / shares.sum()))])


def drawn(rng: np.random.Generator, name: str) -> Call:
    """Draw a call of a function."""
    known, words = functions()[name], Draw(rng, name)
    # Without `like` an Objective checks its data when parameters come.
    needed = {*known.needed, *(["like"] if name == "Objective" else [])}
    call = Call(name)
    for argument in known.names:
        # An optional argument is given in one call of three, but for those that others depend on.
        tied = argument in ("loss", "batch_first") or argument in needed
        value = words.good(argument) if tied or rng.random() < 0.33 else None
        if value is not None:
            call.arguments[argument] = value
        elif argument in known.needed:
            call.arguments[argument] = "None"
    for _ in range(int(rng.choice(3, p=(0.1, 0.65, 0.25)))):
        argument = words.one(known.names)
        call.arguments[argument] = words.spoilt(argument)
    call.arguments = {n: call.arguments[n] for n in known.names if n in call.arguments}
    return call


def simpler(call: Call) -> Iterator[Call]:
    """Go through calls that are one step simpler: an argument left out, or laid out as usual."""
    known = functions()[call.function]
    for name in call.arguments:
        if name not in known.needed and (call.function, name) != ("Objective", "like"):
            yield Call(call.function, {n: w for n, w in call.arguments.items() if n != name})
    for name, words in call.arguments.items():
        for layout in LAYOUTS:
            if words.startswith(f"{layout}(") and words.endswith(")"):
                yield Call(call.function, call.arguments | {name: words[len(layout) + 1 : -1]})
