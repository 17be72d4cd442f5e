"""Every check of an argument, and every allocation of a result: once, here, before any work is done.

The extension trusts what comes from here: aligned, native byte order, the right dtype and shape.
"""

from .arrays import (
    FloatArray,
    IntArray,
    array,
    cast,
    copied,
    floats,
    integers,
    memory_for,
    number,
    numeric,
    parameters,
    square,
)
from .results import (
    allocate,
    out,
)
from .scalars import (
    MAX_THREADS,
    affordable,
    boolean,
    choice,
    complex_dtype,
    describe,
    generator,
    integer,
    memory_limit,
    names,
    nonnegative,
    num_threads,
    real,
    real_dtype,
    scalar_type,
    size,
)
from .sequences import (
    caller_shape,
    initial_state,
    labels,
    like_sequence,
    sequence,
    time_major,
)
from .weights import (
    StepWeights,
    step_weights,
)

__all__ = [
    "MAX_THREADS",
    "FloatArray",
    "IntArray",
    "StepWeights",
    "affordable",
    "allocate",
    "array",
    "boolean",
    "caller_shape",
    "cast",
    "choice",
    "complex_dtype",
    "copied",
    "describe",
    "floats",
    "generator",
    "initial_state",
    "integer",
    "integers",
    "labels",
    "like_sequence",
    "memory_for",
    "memory_limit",
    "names",
    "nonnegative",
    "num_threads",
    "number",
    "numeric",
    "out",
    "parameters",
    "real",
    "real_dtype",
    "scalar_type",
    "sequence",
    "size",
    "square",
    "step_weights",
    "time_major",
]
