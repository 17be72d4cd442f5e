"""How calls are drawn: a good one of a random function, then one or two of its arguments spoilt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import sklearn.base

import rnnbptt
from rnnbptt import reference
from rnnbptt.engine.losses import LOSSES

from . import vocabulary
from .vocabulary import LAYOUTS, normal

#: How often a function is called, in shares; reports and fits take milliseconds.
FREQUENT, SELDOM, RARE = 8.0, 1.0, 0.1


@dataclass(frozen=True)
class Function:
    """What is called, the names of its arguments, and how often.

    Attributes
    ----------
    call : callable
    names : tuple of str
        All arguments that the signature names, in its order.
    needed : tuple of str
        Those without a default.
    share : float
    """

    call: Callable[..., Any]
    names: tuple[str, ...]
    needed: tuple[str, ...]
    share: float


def _function(call: Callable[..., Any], share: float) -> Function:
    listed = inspect.signature(call).parameters.values()
    known = [p for p in listed if p.name != "self"]
    return Function(
        call,
        tuple(p.name for p in known),
        tuple(p.name for p in known if p.default is inspect.Parameter.empty),
        share,
    )


#: Public functions that are not called: they set nothing, take nothing, or are what results are made of.
UNCALLED = frozenset(
    {"build_info", "get_num_threads", "reference", "Trajectory", "Gradients", "GaussNewton", "GradientFlow"}
    | {"Schedule", "SpectralReport", "TruncationReport", "LinearRNNRegressor", "RNNRegressor"}
)
_SELDOM = {"gradient_flow", "truncation_report", "spectral_report"}
METHODS = {
    "Params.random": (lambda: rnnbptt.Params.random, FREQUENT),
    "params.unravel": (lambda: vocabulary.params.unravel, FREQUENT),
    "objective": (lambda: _made("objective").__call__, FREQUENT),
    **{
        f"objective.{name}": ((lambda name=name: getattr(_made("objective"), name)), FREQUENT)
        for name in ("flat", "jac", "hessp", "residuals", "gauss_newton", "pack", "unpack")
    },
    "coin.cuts": (lambda: _made("coin").cuts, FREQUENT),
    "flow.horizon": (lambda: _made("flow").horizon, SELDOM),
    "flow.range_exits": (lambda: _made("flow").range_exits, SELDOM),
    "truncated.choose": (lambda: _made("truncated").choose, SELDOM),
    "fit": (lambda: fit, RARE),
    "fitted.fit": (lambda: sklearn.base.clone(_made("fitted")).fit, RARE),
    "fitted.predict": (lambda: _made("fitted").predict, SELDOM),
    "fitted.simulate": (lambda: _made("fitted").simulate, SELDOM),
    "fitted.forecast": (lambda: _made("fitted").forecast, SELDOM),
    "fitted.score": (lambda: _made("fitted").score, SELDOM),
}


def fit(**hyperparameters: Any) -> Any:
    """Fit an estimator of these hyperparameters, whose names are the estimator's."""
    return rnnbptt.LinearRNNRegressor(**hyperparameters).fit(normal(20, 2), normal(20, 1))


fit.__signature__ = inspect.signature(rnnbptt.LinearRNNRegressor)  # type: ignore[attr-defined]


@cache
def _made(name: str) -> Any:
    return vocabulary.OBJECTS[name]()


@cache
def functions() -> Mapping[str, Function]:
    """Return everything that is called, by the name it is written with."""
    result = {
        name: _function(getattr(rnnbptt, name), SELDOM if name in _SELDOM else FREQUENT)
        for name in rnnbptt.__all__
        if name not in UNCALLED
    }
    result |= {
        f"reference.{name}": _function(getattr(reference, name), SELDOM)
        for name in reference.__all__
        if inspect.isfunction(getattr(reference, name))
    }
    return result | {name: _function(make(), share) for name, (make, share) in METHODS.items()}


@dataclass
class Call:
    """A call as text: its function and, for each argument given, the words for its value."""

    function: str
    arguments: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(f'{name}={words}' for name, words in self.arguments.items())})"


# --- values --------------------------------------------------------------------------------------------------

_HUGE = ("10**30", "-(10**30)", "10**5000", "-(10**5000)", "2**63", "2**64")
_NO_NUMBER = (
    *("'1'", "b'1'", "''", "[]", "{}", "()", "1j", "object()", "len", "{1, 2}", "np.array('x')"),
    *("(i for i in range(2))", "['a', 'b']", "{'a': 1}", "np.datetime64('2020')", "np.timedelta64(1, 's')"),
    *("[[1.0, 2.0], [3.0]]", "np.array([None])", "Ellipsis", "slice(1)", "normal(2, 2)"),
)
_NO_INTEGER = (
    *_NO_NUMBER,
    "2.5",
    "2.0",
    "nan",
    "inf",
    "True",
    "np.float64(2)",
    "Decimal(2)",
    "Fraction(1, 2)",
)
_NO_FLAG = ("0", "1", "'True'", "None", "[]", "1.0", "nan", "np.zeros(2)", "object()", "2**64", "10**5000")
_NO_WORD = ("''", "'Mse'", "3", "b'mse'", "[]", "nan", "np.array(['a', 'b'])", "normal(2)", "10**5000", "{}")
_NO_PARAMS = ("3", "'params'", "{}", "normal(3, 3)", "(1, 2, 3)", "Params", "object()", "nan", "10**5000")
_NO_SEED = ("-1", "1.5", "'a'", "[]", "normal(2)", "object()", "nan", "True", "-(10**5000)")

_INTEGERS = {"num_threads", "memory_limit", "n", "lags", "draws", "d", "h", "q", "steps", "batch", "n_hidden"}
_INTEGERS |= {"n_starts", "n_iter_no_change", "max_iter", "n_jobs", "verbose"}
_FLAGS = {
    "batch_first",
    "reverse",
    "transpose",
    "biases",
    "direct",
    "fit_h0",
    "standardize",
    "early_stopping",
}
_REALS = {"spectral_radius", "max_norm", "tol", "probability", "ridge", "validation_fraction"}
_REALS |= {"max_spectral_radius"}
_WORDS = {"method", "kind", "on_nonfinite", "ord", "dtype", "solver", "starts"}
_PARAMS = {"params", "d_params", "direction", "gradients", "like"}


class Draw:
    """One draw: sizes that fit together, and words for every argument of them."""

    def __init__(self, rng: np.random.Generator, function: str, most_steps: int = 9) -> None:
        self.rng, self.function = rng, function
        self.T = int(rng.integers(1, most_steps))
        self.B = int(rng.integers(1, 4))
        self.d, self.h, self.q = (int(n) for n in rng.integers(1, 5, 3))
        self.terms = int(rng.integers(2))
        self.dtype = "f4" if rng.random() < 0.25 else "f8"
        self.loss = self.one(["None", *LOSSES])
        self.batch = self.one(["with", "with", "without", "first"])
        if function.split(".")[0] in vocabulary.OBJECTS:
            self.d, self.h, self.q, self.terms, self.dtype = 2, 3, 2, 1, "f8"
        if function.startswith("fitted"):
            self.batch = "without"

    def one(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    # Shapes.

    def series(self, *features: int) -> tuple[int, ...]:
        lanes = {"with": (self.T, self.B), "without": (self.T,), "first": (self.B, self.T)}[self.batch]
        return (*lanes, *features)

    def lanes(self, *features: int) -> tuple[int, ...]:
        return features if self.batch == "without" else (self.B, *features)

    def shape(self, name: str) -> tuple[int, ...] | None:
        d, h, q = self.d, self.h, self.q
        size = h * (d + h + q) + self.terms * (h + q + q * d)
        shapes: dict[str, tuple[int, ...]] = {
            "x": self.series(d),
            "d_x": self.series(d),
            "d_o": self.series(q),
            "v": self.series(h),
            "h0": self.lanes(h),
            "d_h0": self.lanes(h),
            "d_hT": self.lanes(h),
            "s0": self.lanes(h),
            "W_hx": (h, d),
            "W_hh": (h, h),
            "W_qh": (q, h),
            "b_h": (h,),
            "b_q": (q,),
            "W_qx": (q, d),
            "W": (h, h),
            "theta": (size,),
            "X": (self.T, d),
            "X_future": (self.T, d),
            "weights": self.series(),
            "sample_weight": (self.T,),
        }
        if self.function == "objective.hessp" and name == "v":
            return (size,)
        return shapes.get(name)

    # Words.

    def array(self, *shape: int, dtype: str | None = None) -> str:
        sizes = "".join(f"{n}, " for n in shape)
        dtype = dtype or self.dtype
        return f"normal({sizes[:-2]})" if dtype == "f8" else f"normal({sizes}dtype={dtype!r})"

    def weights_words(self, words: str) -> str:
        return words.replace("normal(", "shares(")

    def good(self, name: str) -> str | None:
        """Return words for an argument that fits the others, None where it is better left out."""
        shape = self.shape(name)
        hvp = self.function.endswith("hvp")
        if name in ("params", "like"):
            return f"P({self.d}, {self.h}, {self.q}, {self.terms}, {self.dtype!r})"
        if name in ("d_params", "direction", "gradients") or (name == "v" and hvp):
            return f"G({self.d}, {self.h}, {self.q}, {self.terms}, {self.dtype!r})"
        if name in ("weights", "sample_weight"):
            if self.loss == "half_square":
                return None
            assert shape is not None
            return self.weights_words(self.laid(self.array(*shape)))
        if shape is not None:
            return self.laid(self.array(*shape))
        return self._good_of_its_own(name)

    def _good_of_its_own(self, name: str) -> str | None:
        T, B = self.T, self.B
        if name == "y":
            if self.loss == "cross_entropy":
                return f"whole({', '.join(map(str, self.series()))}, below={self.q})"
            return self.laid(self.array(*self.series(self.q)))
        if name == "loss":
            return None if self.loss == "None" else repr(self.loss)
        if name == "batch_first":
            return "True" if self.batch == "first" else None
        if name == "mask":
            return f"flags({', '.join(map(str, self.series()))})"
        if name == "lengths":
            if self.function.startswith("fitted"):
                return None
            return str(T) if self.batch == "without" else str([T, *(1 for _ in range(B - 1))])
        if name == "wrt":
            return self.one(["'W_hh'", "['W_hh', 'W_qh']", "('h0',)", "['x', 'W_hx']", "None"])
        if name == "truncate":
            tau = int(self.rng.integers(1, 5))
            return self.one([f"Sliding({tau})", f"Chunked({tau})", f"Randomized({tau}, rng=0)"])
        if name == "out":
            return self._result()
        choices = {
            "num_threads": ("1", "2", "3"),
            "memory_limit": ("10**6", "10**9"),
            "n": ("0", "1", "5", "17"),
            "lags": ("1", "3"),
            "draws": ("2", "3"),
            "d": ("1", "2"),
            "h": ("1", "3"),
            "q": ("1", "2"),
            "steps": ("1", "4"),
            "batch": ("1", "3"),
            "spectral_radius": ("0.5", "0", "1.2"),
            "max_norm": ("1.0", "inf", "0"),
            "tol": ("0.01", "0.5"),
            "probability": ("0.5",),
            "rng": ("0", "rng(1)", "None"),
            "seed": ("0",),
            "kind": ("'gaussian'", "'orthogonal'", "'symmetric'", "'identity'"),
            "ks": ("[0, 1, 5]", "3"),
            "ord": ("2", "'fro'", "1", "inf"),
            "on_nonfinite": ("'raise'", "'keep'", "'zero'"),
            "reverse": ("True", "False"),
            "transpose": ("True", "False"),
            "tau": ("1", "3"),
            "biases": ("True", "False"),
            "direct": ("True", "False"),
            "dtype": ("'f4'", "np.float64"),
            "n_hidden": ("1", "2"),
            "n_starts": ("1",),
            "max_iter": ("1", "4"),
            "n_jobs": ("1",),
            "ridge": ("0.1",),
            "solver": ("'lm'", "'lbfgs'"),
            "starts": ("'random'", "['subspace']"),
            "fit_h0": ("False",),
            "standardize": ("False",),
            "random_state": ("0",),
            "method": self._methods(),
        }
        return self.one(choices[name]) if name in choices else None

    def _methods(self) -> tuple[str, ...]:
        if self.function.endswith("state_gradients"):
            return (
                ("'recursion'", "'closed_form'", "'scan'") if "." not in self.function else ("'recursion'",)
            )
        if self.function.endswith("choose"):
            return ("'sliding'", "'chunked'", "'randomized'")
        if "numerical" in self.function or "directional" in self.function:
            return ("'complex_step'", "'differences'")
        return ("'recursion'", "'closed_form'", "'forward_mode'")

    def _result(self) -> str | None:
        dtype = self.dtype
        if self.function == "forward":
            hidden, o = self.series(self.h), self.series(self.q)
            return f"(empty(*{hidden}, dtype={dtype!r}), empty(*{o}, dtype={dtype!r}))"
        if self.function == "matrix_powers":
            return None
        return f"empty(*{self.series(self.h)}, dtype={dtype!r})"

    def laid(self, words: str) -> str:
        """Return the words, in one call of five with a layout or a dtype that is cast safely."""
        if self.rng.random() < 0.8:
            return words
        if self.rng.random() < 0.2 and self.dtype == "f8" and words.endswith(")"):
            return words[:-1] + f", dtype={self.one(['f4', 'f2'])!r})"
        return f"{self.one(list(LAYOUTS))}({words})"

    # What does not fit.

    def marked(self, nonsense: Iterable[str]) -> list[str]:
        """Mark words that must be refused; the estimator converts what scikit-learn's estimators do."""
        return [w if self.function.startswith("fitted") else f"wrong({w})" for w in nonsense]

    def spoilt(self, name: str) -> str:
        """Return words for something else in the place of an argument."""
        needed = name in functions()[self.function].needed
        shape = self.shape(name)
        if name in _PARAMS or (name == "v" and self.function.endswith("hvp")):
            good = self.good(name) or ""
            other = good.replace(f"{self.h}, ", f"{self.h + 1}, ", 1)
            return self.one(
                [*self.marked((*_NO_PARAMS, *(["None"] if needed else []))), other, "Gradients()"]
            )
        if shape is not None or name == "y":
            return self._spoilt_array(name, shape or self.series(self.q))
        if name in _INTEGERS:
            return self.one(
                [*self.marked(_NO_INTEGER), *_HUGE, "0", "-1", "np.uint8(2)", "np.array(2)", "None"]
            )
        if name in _FLAGS:
            return self.one([*self.marked(_NO_FLAG), "np.True_", "True", "False"])
        if name in _REALS:
            return self.one(
                [*self.marked(_NO_NUMBER), "nan", "-1", "-inf", "5e-324", "1e308", *_HUGE, "True"]
            )
        if name in _WORDS:
            return self.one(
                [*self.marked(_NO_WORD[:2]), *_NO_WORD, "None", "np.array('raise')", "'f2'", "int"]
            )
        if name in ("rng", "random_state"):
            return self.one([*self.marked(_NO_SEED), "10**30", "np.random.RandomState(0)"])
        if name == "loss":
            nonsense = ("3", "''", "'MSE'", "[]", "nan", "('mse', 1.0)", "b'mse'", "10**5000", "normal(2)")
            odd = (
                "half_square",
                "len",
                "print",
                "('huber', -1)",
                "('huber', nan)",
                "(1, 2, 3)",
                "str",
                "None",
            )
            return self.one([*self.marked(nonsense), *odd])
        if name == "truncate":
            return self.one(
                [*self.marked(("3", "'sliding'", "Sliding", "(3,)", "nan", "10**5000")), "Sliding(10**9)"]
            )
        if name == "wrt":
            nonsense = (
                "3",
                "'W'",
                "('W_hh', 3)",
                "[None]",
                "('x', 'y')",
                "nan",
                "[['W_hh']]",
                "10**5000",
                "b'x'",
            )
            return self.one([*self.marked(nonsense), "()", "{'W_hh': 1}", "{'W_hh'}", "['W_hh', 'W_hh']"])
        if name == "out":
            return self._spoilt_result()
        if name == "mask":
            sizes = ", ".join(map(str, self.series()))
            return self.one(
                [
                    *self.marked(
                        (
                            "3",
                            "'mask'",
                            "{}",
                            f"normal({sizes})",
                            f"whole({sizes})",
                            "[True, None]",
                            "10**5000",
                        )
                    )
                ]
                + [f"~flags({sizes})", f"np.zeros(({sizes},), bool)", f"flags({sizes}, 1)", "True"]
            )
        if name in ("lengths", "ks"):
            nonsense = ("'a'", "{}", "2.5", "[1.5]", "[nan]", "['a']", "[None]", "1j", "[10**30]", "10**5000")
            odd = (
                "-1",
                "[-1]",
                "[[1]]",
                "0",
                "[0]",
                "[]",
                "[2**63]",
                "[2**62, 1]",
                "[True]",
                "np.uint8([1])",
            )
            return self.one([*self.marked(nonsense), *odd])
        return self.one([*_NO_NUMBER, *_HUGE, "nan", "-1", "0", "None", "'a'"])

    def _spoilt_array(self, name: str, shape: tuple[int, ...]) -> str:
        words = self.good(name) or self.array(*shape)
        sizes = ", ".join(map(str, shape))
        axis = int(self.rng.integers(len(shape)))
        longer = ", ".join(str(n + (i == axis)) for i, n in enumerate(shape))
        without = ", ".join("0" if i == axis else str(n) for i, n in enumerate(shape))
        same = (
            *(f"{words} * 1j", f"{words}.astype(object)", f"{words}.astype('U9')", f"np.ma.array({words})"),
            *(f"np.zeros(({sizes},), 'M8[s]')", f"np.zeros(({sizes},), 'm8[D]')", f"{words}.astype('S9')"),
            *(f"np.zeros(({sizes},), [('a', 'f8')])", f"np.ma.masked_all(({sizes},))"),
            f"{words}.astype('O') * 10**5000",
        )
        odd = (
            *(f"normal({longer})", f"normal({without})", f"{words}[..., None]", f"{words}[0]", "1.5", "nan"),
            *(f"spiked({words}, {self.one(['nan', 'inf', '-inf', '1e38', '5e-324', '0.0'])})",),
            *(f"{words} * {self.one(['1e300', '1e-300', '1e30', '0', '-1', 'nan'])}", f"{words}.tolist()"),
            *(
                f"{words}.astype({self.one(['f2', 'f4', 'i1', 'u8', '?', '>f8', 'g'])!r})",
                "10**30",
                "10**5000",
            ),
            *(f"np.zeros(({sizes},))", f"{self.one(list(LAYOUTS))}({words})", f"[{words}]", "'a'", "b'a'"),
            *(f"np.broadcast_to({words}, ({sizes},))", f"normal({sizes}, seed=1)", f"iter({words})"),
        )
        nonsense = [word for word in _NO_NUMBER if not word.startswith("normal")]
        if name == "y" and self.loss == "None":
            nonsense = nonsense[:3]
        return self.one([*self.marked(nonsense), *self.marked(same), *odd, *odd])

    def _spoilt_result(self) -> str:
        good = self._result() or "empty(2, 3)"
        nonsense = ["3", "'out'", "[]", "{}", "(None,)", "normal(1, 1, 1).astype('i1')", "10**5000", "nan"]
        first = functions()[self.function].names[1]
        nonsense += [f"{good}.tolist()"] if not good.startswith("(") else ["(3, 4)", "(None, None)"]
        if not good.startswith("("):
            nonsense += [
                f"read_only({good})",
                f"big_endian({good})",
                f"misaligned({good})",
                f"{good}[..., None]",
            ]
            nonsense += [f"np.ma.array({good})"]
            if first in ("v", "d_o"):
                nonsense += [f"{first}[:]", f"{first}[::-1]"]
        return self.one([*self.marked(nonsense), good, "None"])


def draw(rng: np.random.Generator) -> Call:
    """Draw a call: nine of ten with one or two arguments that may not fit."""
    names = list(functions())
    shares = np.array([functions()[name].share for name in names])
    name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    return drawn(rng, name)


def drawn(rng: np.random.Generator, name: str) -> Call:
    """Draw a call of a function."""
    known, words = functions()[name], Draw(rng, name)
    call = Call(name)
    # Without `like` an Objective checks its data when parameters come.
    needed = {*known.needed, *(["like"] if name == "Objective" else [])}
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
    """Go through calls that are one step simpler: an argument left out, or ordinary again."""
    known = functions()[call.function]
    for name in call.arguments:
        if name not in known.needed and (call.function, name) != ("Objective", "like"):
            yield Call(call.function, {n: w for n, w in call.arguments.items() if n != name})
    for name, words in call.arguments.items():
        for layout in LAYOUTS:
            if words.startswith(f"{layout}(") and words.endswith(")"):
                yield Call(call.function, call.arguments | {name: words[len(layout) + 1 : -1]})
