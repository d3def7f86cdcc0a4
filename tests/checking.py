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
from beartype.roar import BeartypeDecorHintPep673Exception
from jaxtyping import jaxtyped

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand where a float is asked for, as for mypy
_SHAPE = re.compile(r"\b(Float|Int|UInt|Integer|Inexact|Real|Num|Bool|Shaped)\d*\[")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its arguments and result checked against their annotations.

    Where they speak of shapes, a name of a dimension means one number in a call. Only there does jaxtyping wrap the
    function: its wrapper takes a tenth of a millisecond, and few functions speak of shapes.
    """
    return jaxtyped(function, typechecker=_check_alone) if _speaks_of_shapes(function) else _check(function)


def _check_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """The check of a method outside its class, where beartype cannot know what `Self` is: such a method stays."""
    try:
        return _check(function)
    except BeartypeDecorHintPep673Exception:
        return function


def _speaks_of_shapes(member: Any) -> bool:
    """Whether the annotations of a function, a property or a method of any kind speak of shapes."""
    function = next((getattr(member, name) for name in ("__func__", "fget", "func") if hasattr(member, name)), member)
    return callable(function) and bool(_SHAPE.search(str(inspect.get_annotations(inspect.unwrap(function)))))


def _check_module(module: ModuleType) -> None:
    """Put the checks around the functions and classes that a module defines."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            shaped = {name: each for name, each in vars(value).items() if _speaks_of_shapes(each)}
            _check(value)  # in place; then jaxtyping takes beartype's place where it must
            for member, method in shaped.items():
                setattr(value, member, jaxtyped(method, typechecker=_check_alone))
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
