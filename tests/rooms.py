"""The rooms of the source tree: which may look into which, and who does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

Edges = Mapping[str, frozenset[str]]

#: Rooms of the package, and the rooms and modules that each may import from, beside its own. A room's name
#: stands for all its modules. The package itself ("") is its public face.
PYTHON_ROOMS: dict[str, frozenset[str]] = {
    "_validate": frozenset(),
    "engine": frozenset({"_validate", "_core"}),
    "gradients": frozenset({"_validate", "_core", "engine"}),
    "reports": frozenset({"_validate", "_core", "engine", "gradients"}),
    "fit": frozenset({"_validate", "engine", "gradients", "reports"}),
    "bridge": frozenset({"_validate", "engine", "gradients"}),
    "torch": frozenset({"_validate", "_core", "engine", "bridge"}),
    "jax": frozenset({"_validate", "_core", "engine", "bridge"}),
    # The oracle shares types and names with what it checks, and no formula.
    "reference": frozenset(
        {"_validate", "engine.floating_point", "engine.losses", "engine.params", "engine.truncation"}
    ),
    # The demo is a program of a user's: it knows the public face.
    "commands": frozenset({"_validate", "engine", "gradients", "reports", "fit", "reference", ""}),
    "_moved": frozenset({"engine", "gradients", "reports"}),
    "": frozenset({"_core", "engine", "gradients", "reports", "fit", "reference", "torch", "jax"}),
    "__main__": frozenset({"commands", ""}),
}

#: The same for the folders of cpp/, by what they include. A file beside the folders of core/ is an entry
#: point, or the schedule or losses.
CPP_ROOMS: dict[str, frozenset[str]] = {
    "include": frozenset(),
    "kernels": frozenset(),
    "core/runtime": frozenset({"include", "kernels"}),
    "core/algebra": frozenset({"include", "kernels", "core/runtime"}),
    "core/schedule": frozenset({"include"}),
    "core/losses": frozenset({"include", "kernels"}),
    "core/sweep": frozenset(
        {"include", "kernels", "core/runtime", "core/algebra", "core/schedule", "core/losses"}
    ),
    "core/sliding": frozenset({"include", "core/runtime", "core/algebra", "core/sweep"}),
    "core/reports": frozenset({"include", "kernels", "core/runtime", "core/algebra"}),
    "core": frozenset(
        {
            "include",
            "kernels",
            "core/runtime",
            "core/algebra",
            "core/schedule",
            "core/losses",
            "core/sweep",
            "core/sliding",
            "core/reports",
        }
    ),
    "bindings": frozenset(
        {"include", "kernels", "core", "core/losses", "core/runtime", "core/algebra", "core/reports"}
    ),
}


# --- the package --------------------------------------------------------------------------------------------


def modules_of(package: Path) -> dict[str, Path]:
    """Return the modules of a package by their names inside it, such as ``engine.params``; "" is itself."""
    result = {"_core": package / "_core.pyi"}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        result[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return result


def imports_of(package: Path) -> Edges:
    """Return which modules each module imports, anywhere in it: lazily and for types too."""
    modules = modules_of(package)
    edges: dict[str, frozenset[str]] = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        home = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = {target for node in ast.walk(tree) for target in _targets(node, home, package.name, modules)}
        edges[name] = frozenset(found - {name})
    return edges


def _targets(node: ast.AST, home: str, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Go through the modules that an import statement in the package `home` names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top, _, inside = alias.name.partition(".")
            if top == package:
                yield inside if inside in modules else inside.rpartition(".")[0]
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            parts = home.split(".") if home else []
            base = parts[: len(parts) - (node.level - 1)]
        elif (node.module or "").split(".")[0] == package:
            base = []
        else:
            return
        named = node.module.split(".") if node.module else []
        target = ".".join([*base, *(named if node.level else named[1:])])
        for alias in node.names:
            full = f"{target}.{alias.name}" if target else alias.name
            yield full if full in modules else target


def room_of(module: str) -> str:
    """Return the room of a module."""
    return module.split(".")[0]


def upward(edges: Edges) -> list[str]:
    """Return the imports that the rooms do not allow, ``who -> whom``."""
    wrong = []
    for name, targets in edges.items():
        room = room_of(name)
        if room == "_core":
            continue
        if room not in PYTHON_ROOMS:
            wrong.append(f"{name}: no room of that name")
            continue
        wrong += [
            f"{name} -> {target or 'the package'}"
            for target in sorted(targets)
            if room_of(target) != room and not {target, room_of(target)} & PYTHON_ROOMS[room]
        ]
    return wrong


def circles(edges: Edges) -> list[list[str]]:
    """Return the sets of nodes that reach one another."""
    # Reachability by repeated joining: the graph is small.
    reach = {name: set(targets) & set(edges) for name, targets in edges.items()}
    grown = True
    while grown:
        grown = False
        for targets in reach.values():
            more = set().union(*(reach[target] for target in targets)) - targets
            grown |= bool(more)
            targets |= more
    found = {frozenset(n for n in reach if n in reach[name] and name in reach[n]) for name in reach}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


# --- the extension ------------------------------------------------------------------------------------------


def includes_of(cpp: Path) -> Edges:
    """Return which sources under `cpp` each file includes; a header and its source are one node."""
    edges: dict[str, set[str]] = {}
    for path in [*cpp.rglob("*.cpp"), *cpp.rglob("*.hpp")]:
        name = path.relative_to(cpp).with_suffix("").as_posix()
        included = re.findall(r'#\s*include\s*"(\S+)\.hpp"', path.read_text(encoding="utf-8"))
        targets = {f"include/{i}" if i.startswith("rnnbptt/") else i for i in included}
        edges.setdefault(name, set()).update(targets - {name})
    return {name: frozenset(targets) for name, targets in edges.items()}


def cpp_room_of(node: str) -> str:
    """Return the room of a file of cpp/."""
    if node in ("core/schedule", "core/losses"):
        return node
    return node.rpartition("/")[0].replace("include/rnnbptt", "include")


def upward_includes(edges: Edges) -> list[str]:
    """Return the includes that the rooms do not allow, ``who -> whom``."""
    wrong = []
    for name, targets in edges.items():
        room = cpp_room_of(name)
        wrong += [
            f"{name} -> {target}"
            for target in sorted(targets)
            if cpp_room_of(target) != room and cpp_room_of(target) not in CPP_ROOMS.get(room, ())
        ]
    return wrong
