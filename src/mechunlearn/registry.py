"""Methods by name, without importing them.

A method is a function under one decorator: `@localizer("causal-tracing")`, `@objective("inject")`,
`@closed_form("rome")`, `@attack("relearn")`, `@elicitation("completion")`. The names are read from the source files, so
that the workflow can check a configuration and find each method's own source file without importing torch. Localizers
may also lie in a user's own files, outside the package, which a study names (`localize.plugins`).

methods         name -> module, for one kind
localizers      the same for localizers, those of a user's own files included
reserved        why a localization of one's own cannot have a name
edits           the same for objectives and closed forms together
localizations   every localization there is, but for further draws and those given by hand
baseline        the baseline that a name means, `random-2` being another draw of `random`
scorer          the localizer whose scores a localization selects by
mlps_only       does it select MLPs alone?
budgeted        does it train as many parameters as the budget says?
ordered         localizations in the order that every table and figure keeps
load            import the method and return its function
benchmarks      the names of the benchmarks that lm-eval knows, or a folder of one's own
sources         a module's file and every file of the package that it imports, directly or not
"""

import ast
import os
import re
import runpy
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from mechunlearn.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])

PACKAGE = Path(__file__).parent
ROOMS = {
    "localizer": "localize",
    "objective": "edit",
    "closed_form": "edit",
    "attack": "attack",
    "elicitation": "facts",
    "figure": "figures",
}
CARRIERS = re.compile(rf"{PACKAGE.name}\.(config|errors|progress|registry)(\..+)?")
BASELINES = ("random", "random-mlps", "all-mlps", "nonlocalized")
PER_FACT = "fact-lookup-per-fact"  # fact lookup's scores, a selection a fact
UNBUDGETED = ("fact-lookup", PER_FACT, "all-mlps", "nonlocalized")
MLP_LOCALIZERS = ("fact-lookup", PER_FACT, "path-patching")  # they look for MLPs, so they have no form with `-mlps`
DRAW = re.compile(r"(random|random-mlps)-(?:[2-9]|[1-9]\d+)")
# A benchmark's name, or a list of them, in lm-eval's files, which need not end in `.yaml`.
BENCHMARK = re.compile(rb"^[\"']?(?:task|group|tag)[\"']?:([^#\n]*(?:\n *- [^#\n]*)*)", re.MULTILINE)
_registered: dict[tuple[str, str], Callable[..., Any]] = {}


def _register(kind: str, name: str) -> Callable[[Function], Function]:
    def keep(function: Function) -> Function:
        _registered[kind, name] = function
        return function

    return keep


def localizer(name: str) -> Callable[[Function], Function]:
    """Register a function that scores the components of a model."""
    return _register("localizer", name)


def objective(name: str) -> Callable[[Function], Function]:
    """Register a function that turns a batch into the loss of an edit."""
    return _register("objective", name)


def closed_form(name: str) -> Callable[[Function], Function]:
    """Register a function that edits a model by writing weights instead of by descending a loss."""
    return _register("closed_form", name)


def attack(name: str) -> Callable[[Function], Function]:
    """Register a function that attacks an edited model and returns measurement rows."""
    return _register("attack", name)


def elicitation(name: str) -> Callable[[Function], Function]:
    """Register a function that asks for a fact in one format."""
    return _register("elicitation", name)


def figure(name: str) -> Callable[[Function], Function]:
    """Register a function that draws one figure of a model and task."""
    return _register("figure", name)


def edits() -> dict[str, str]:
    """Name -> module of all that a study's `objectives` may name: losses and closed forms."""
    return methods("objective") | methods("closed_form")


@cache
def methods(kind: str) -> dict[str, str]:
    """Name -> module of every method of a kind, read from the decorators in the source."""
    return {
        name: f"{PACKAGE.name}.{ROOMS[kind]}.{file.stem}"
        for file in sorted((PACKAGE / ROOMS[kind]).glob("*.py"))
        for name in _decorated(file, kind)
    }


def _decorated(file: Path, kind: str) -> list[str]:
    """The names under which a file registers functions. Raises OSError, SyntaxError or ValueError."""
    return [
        _name(mark)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == kind
    ]


def _name(mark: ast.Call) -> str:
    """The one argument of a decorator. Raises ValueError where it is no name."""
    first = mark.args[0] if len(mark.args) == 1 else None
    if mark.keywords or not isinstance(first, ast.Constant) or not isinstance(first.value, str):
        raise ValueError(f"line {mark.lineno}: {ast.unparse(mark.func)} takes one name in quotes and nothing else")
    return first.value


def reserved(localization: str) -> str:
    """Why a localization of one's own cannot have this name; empty where it can."""
    if localization == "base":
        return "the name `base` stands for the model before any edit"
    if localization in ("measurements", "attacks", "masks"):
        return f"the name `{localization}` is that of a folder of results"
    if localization.endswith("-weights"):
        return f"the name `{localization}` ends in -weights, as files of masks do"
    return ""


def localizers(plugins: Iterable[str] = ()) -> dict[str, str]:
    """Name -> module of every localizer; of those in a user's own files, name -> path.

    Raises ValueError where a file is not one of Python with a localizer in it, or takes a name that is not free.
    """
    found = dict(methods("localizer"))
    for path in plugins:
        try:
            names = _decorated(Path(path), "localizer") if path.endswith(".py") else []
        except OSError:
            raise ValueError(f"{path!r}: there is no such file") from None
        except (SyntaxError, UnicodeDecodeError) as error:
            raise ValueError(f"{path!r} is not Python: {error}") from None
        except ValueError as error:
            raise ValueError(f"{path!r}, {error}") from None
        if not names:
            raise ValueError(f'{path!r}: it must be a .py file with a function under `@localizer("NAME")`')
        for name in names:
            if why := reserved(name):
                raise ValueError(f"{path!r}: {why}")
            if name in found or baseline(name) or name.endswith(("-mlps", "-per-fact")):
                raise ValueError(
                    f"{path!r}: {name!r} is taken, or ends in -mlps or -per-fact, which are made from names"
                )
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,59}", name):
                raise ValueError(
                    f"{path!r}: a name has at most 60 of a-z, 0-9, `.` and `-`, which {name!r} does not keep to"
                )
            found[name] = path
    return found


def localizations(plugins: Iterable[str] = ()) -> list[str]:
    """Fact lookup, every other localizer over all components and over MLPs only, and the baselines."""
    ranked = [name for name in sorted(localizers(plugins)) if name != "fact-lookup"]
    forms = [(name,) if name in MLP_LOCALIZERS else (name, f"{name}-mlps") for name in ranked]
    return ["fact-lookup", PER_FACT, *(name for names in forms for name in names), *BASELINES]


def baseline(localization: str) -> str | None:
    """The baseline that a name means: `random-mlps-3` is the third draw of `random-mlps`; None for any other name."""
    if localization in BASELINES:
        return localization
    draw = DRAW.fullmatch(localization)
    return draw[1] if draw else None


def scorer(localization: str) -> str | None:
    """The localizer whose scores a localization selects by; None for a baseline."""
    return None if baseline(localization) else localization.removesuffix("-mlps").removesuffix("-per-fact")


def mlps_only(localization: str) -> bool:
    """Does it select MLPs alone?"""
    return localization in MLP_LOCALIZERS or (baseline(localization) or localization).endswith("-mlps")


def budgeted(localization: str) -> bool:
    """Does it train as many parameters as the budget says?"""
    return localization not in UNBUDGETED


def ordered(names: Iterable[str]) -> list[str]:
    """Localizations in the order of `localizations`, each draw behind its first, names of a user's own last."""
    known = localizations()

    def place(name: str) -> tuple[int, int, str]:
        family = baseline(name) or name
        number = 0 if family == name else int(name.rpartition("-")[2])
        return known.index(family) if family in known else len(known), number, name

    return sorted(names, key=place)


def load(kind: str, name: str, plugins: Iterable[str] = ()) -> Callable[..., Any]:
    """Import a method and return its function. Raises UserError for an unknown name."""
    known = localizers(plugins) if kind == "localizer" else methods(kind)
    if name not in known:
        raise UserError(f"{kind} is {name!r}; allowed: {', '.join(sorted(known))}.")
    module = known[name]
    if module.endswith(".py"):
        runpy.run_path(module)
    else:
        import_module(module)
    return _registered[kind, name]


@cache
def benchmarks(folder: str = "") -> frozenset[str]:
    """Names of lm-eval's tasks, groups and tags and of those in a folder of one's own; none without the library.

    Read off its YAML files: importing the library and parsing all of them takes fifteen times as long. A few names too
    many are among them, members of groups that the library does not find; it says so itself.
    """
    library = find_spec("lm_eval")
    if library is None or not library.submodule_search_locations:
        return frozenset()
    roots = [str(Path(library.submodule_search_locations[0]) / "tasks"), *([folder] if folder else [])]
    walked = ((Path(place) / file, file) for root in roots for place, _, files in os.walk(root) for file in files)
    texts = (path.read_bytes() for path, file in walked if file.endswith(".yaml") or "." not in file)
    found = (names for text in texts for names in BENCHMARK.findall(text))
    return frozenset(name.decode() for names in found for name in re.findall(rb"[^\s\[\],\"']+", names))


@cache
def sources(*modules: str) -> list[str]:
    """The files of modules (or files) and of all they import from this package, as paths; the workflow's code inputs.

    Snakemake does not see what a command imports, so every rule lists these files as inputs. CARRIERS are left
    out: they carry names and settings, and what a setting is reaches a job as its parameters.
    """
    pending, seen = list(modules), set[str]()
    while pending:
        module = pending.pop()
        if module not in seen and _file(module) is not None:
            seen.add(module)
            pending.extend(_imports(module))
    return sorted(str(_file(module)) for module in seen if not CARRIERS.fullmatch(module))


@cache
def _file(module: str) -> Path | None:
    if module.endswith(".py"):
        return Path(module)
    if module.split(".")[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache  # every rule has most modules among its sources, and reading one takes milliseconds
def _imports(module: str) -> list[str]:
    """Modules named in a file's imports, at any depth; `from package import module` included."""
    names: list[str] = []
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):  # type: ignore[union-attr]
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
