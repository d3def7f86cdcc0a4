"""The run-time checks that `conftest` puts around the mathematics while it is under test: types and shapes."""

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand where a float is asked for, as for mypy
_SHAPE = re.compile(r"\b(Float|Int|UInt|Integer|Inexact|Real|Num|Bool|Shaped)\d*\[")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its arguments and result checked against their annotations.

    Where they speak of shapes, a name of a dimension means one number in a call. Only there does jaxtyping wrap the
    function: its wrapper takes a tenth of a millisecond, and few functions speak of shapes.
    """
    annotations = str(inspect.get_annotations(inspect.unwrap(function)))
    return jaxtyped(function, typechecker=_check) if _SHAPE.search(annotations) else _check(function)


def _check_module(module: ModuleType) -> None:
    """Put the checks around the functions and classes that a module defines."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            for member, method in list(vars(value).items()):
                if inspect.isfunction(method) and _SHAPE.search(str(inspect.get_annotations(inspect.unwrap(method)))):
                    setattr(value, member, checked(method))
            _check(value)  # in place
        elif inspect.isfunction(value):
            setattr(module, name, checked(value))


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _check_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(fullname == package or fullname.startswith(f"{package}.") for package in self.packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def check_packages(packages: Sequence[str]) -> None:
    """Put the checks around `packages`, modules or whole packages, none of which has been imported yet."""
    assert not set(packages) & set(sys.modules)
    sys.meta_path.insert(0, _Finder(packages))
