"""Results for ArviZ and xarray: scores, samples, imputations and their calibration as labelled arrays."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jensen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from jensen.commands.impute import Imputed
    from jensen.commands.sample import Samples
    from jensen.commands.score import Scored
    from jensen.data.spec import DataSpec
    from jensen.inference.calibration import Calibration

Variable = tuple[tuple[str, ...], "np.ndarray", dict[str, Any]]
Group = tuple[Mapping[str, "Variable"], Mapping[str, "Sequence[Any]"]]  # variables and coordinates
AXES = {
    "vector": ("feature",),
    "signal": ("channel", "time"),
    "image": ("channel", "row", "column"),
    "volume": ("channel", "plane", "row", "column"),
}


def to_arviz(*results: "Scored | Samples | Imputed | Calibration", chains: int = 1) -> Any:
    """The results as one `arviz.InferenceData` (ArviZ 0.x) or `xarray.DataTree` (1.x), whose groups are datasets.

    | result of             | group                  | variables                                                      |
    |-----------------------|------------------------|----------------------------------------------------------------|
    | `jensen.sample`       | `prior_predictive`     | x (chain, draw, ...), or each column of a table                |
    | `jensen.impute`       | `posterior_predictive` | x (chain, draw, example, ...), or each column of a table       |
    |                       | `observed_data`        | the examples; NaN where no value is known                      |
    |                       | `constant_data`        | x_observed, ...: True for entries that the model saw           |
    | `jensen.score`        | `scores`               | bound, standard_error, bits_per_dimension, the terms (example) |
    | `Imputed.calibration` | `calibration`          | coverage, ranks, with standard errors                          |

    Draws are independent, so they may be divided into any number of `chains`, of which some functions of ArviZ need
    two. Categories of a table are their codes; the attribute `categories` of the variable has their names. Raises
    `InputError` if ArviZ is not installed, for two results of one kind, and for chains of different lengths.
    """
    groups: dict[str, Group] = {}
    for result in results:
        for name, group in _groups(result, chains).items():
            if name in groups:
                raise InputError(f"to_arviz: two results make the group {name}; give one of each kind")
            groups[name] = group
    return _whole({name: _dataset(group) for name, group in groups.items()})


def _whole(datasets: Mapping[str, Any]) -> Any:
    """The groups as one value of the installed ArviZ."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.x announces 1.x at every import
            import arviz
    except ImportError as error:
        raise InputError("to_arviz needs the package arviz; pip install 'jensen[arviz]'") from error
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(**datasets)
    import xarray

    return xarray.DataTree.from_dict(dict(datasets))


def _dataset(group: "Group") -> Any:
    import xarray

    variables, coordinates = group
    return xarray.Dataset(variables, coordinates, {"created_by": "jensen"})


def _groups(result: Any, chains: int) -> "dict[str, Group]":
    from jensen.commands.impute import Imputed
    from jensen.commands.sample import Samples
    from jensen.commands.score import Scored
    from jensen.inference.calibration import Calibration

    if isinstance(result, Samples):
        return {"prior_predictive": (_variables(_in_chains(result.x, chains), result.spec, ("chain", "draw")), {})}
    if isinstance(result, Imputed):
        return _of_imputation(result, chains)
    if isinstance(result, Scored):
        return {"scores": _of_scores(result)}
    if isinstance(result, Calibration):
        return {"calibration": _of_calibration(result)}
    raise InputError(
        f"to_arviz: got {type(result).__name__}, expected a result of jensen.score, jensen.sample or jensen.impute, or "
        "a calibration of imputations"
    )


def _in_chains(draws: "np.ndarray", chains: int) -> "np.ndarray":
    """Draws (draws, ...) as (chains, draws of each, ...)."""
    if chains < 1 or len(draws) % chains:
        raise InputError(
            f"chains {chains}: {len(draws)} draws cannot be divided into so many equal parts; give another"
        )
    return draws.reshape(chains, -1, *draws.shape[1:])


def _variables(values: "np.ndarray", spec: "DataSpec", leading: tuple[str, ...]) -> "dict[str, Variable]":
    """Values (*leading, *shape) in the units of the raw data: x, or the columns of a table."""
    if spec.table is None:
        return {"x": ((*leading, *_axes(spec)), values, {})}
    from jensen.data.table.cells import typed_cells
    from jensen.data.table.matrix import decode

    batch = values.shape[:-1]
    rows = decode(values.reshape(-1, values.shape[-1]), spec.table)
    found: dict[str, Variable] = {}
    for column, places in zip(spec.table.columns, spec.table.places(), strict=True):
        if spec.table.fields[places[0]].law == "codes":
            cells, told = values[..., places[0]], {"categories": [str(value) for value in column.values]}
        else:
            typed = typed_cells(column.name, rows.column(column.name))
            flat, told = typed.moments if typed.numbers is None else typed.numbers, {}
            assert flat is not None
            cells = flat.reshape(batch)
        found[column.name] = (leading, cells, told)
    return found


def _of_imputation(result: "Imputed", chains: int) -> "dict[str, Group]":
    import numpy as np

    spec, named = result.run.spec, {"example": list(result.names)}
    truth = result.truth.astype(np.float64)
    truth = np.where(result.known.numpy(), truth, np.nan)
    draws = _in_chains(result.draws, chains)
    seen = result.observed.numpy()
    observed: dict[str, Variable] = {"x": (("example", *_axes(spec)), seen, {})}
    if spec.table is not None:
        places = zip(spec.table.columns, spec.table.places(), strict=True)
        observed = {column.name: (("example",), np.asarray(seen[:, own].all(1)), {}) for column, own in places}
    return {
        "posterior_predictive": (_variables(draws, spec, ("chain", "draw", "example")), named),
        "observed_data": (_variables(truth, spec, ("example",)), named),
        "constant_data": ({f"{name}_observed": variable for name, variable in observed.items()}, named),
    }


def _axes(spec: "DataSpec") -> tuple[str, ...]:
    """The names of the axes of an example that is no row of a table."""
    return AXES.get(spec.layout, tuple(f"axis_{place}" for place in range(len(spec.shape))))


def _of_scores(result: "Scored") -> "Group":
    """The scores, with the terms of the bound by name; `label` is the name of an example's label."""
    scores = result.scores
    columns = {
        "bound": scores.bound,
        "standard_error": scores.standard_error,
        "bits_per_dimension": scores.bits_per_dimension,
        **scores.terms,
    }
    variables: dict[str, Variable] = {
        name: (("example",), values.numpy(), {} if name == "bits_per_dimension" else {"units": "nats"})
        for name, values in columns.items()
    }
    coordinates: dict[str, Any] = {"example": list(result.names)}
    if result.labels is not None:
        labels = [result.spec.label_name(label) for label in result.labels.tolist()]
        coordinates["label"] = ("example", labels)
    return variables, coordinates


def _of_calibration(result: "Calibration") -> "Group":
    """Coverage of central intervals by level, and the shares of ranks in bins; both with standard errors."""
    shares = {"coverage": [one.share for one in result.coverage], "ranks": list(result.ranks)}
    dims = {"coverage": "level", "ranks": "bin"}
    variables: dict[str, Variable] = {}
    for name, estimates in shares.items():
        variables[name] = ((dims[name],), _array(one.mean for one in estimates), {})
        errors = _array(one.standard_error for one in estimates)
        variables[f"{name}_standard_error"] = ((dims[name],), errors, {})
    count = len(result.ranks)
    middles = [(place + 0.5) / count for place in range(count)]
    return variables, {"level": [one.nominal for one in result.coverage], "bin": middles}


def _array(values: "Iterable[float | None]") -> "np.ndarray":
    import numpy as np

    return np.array([math.nan if value is None else value for value in values])
