"""The verbs over HTTP: each is a conversation that asks the queue for rows of works and ends with an answer.

A verb is a generator. It checks the request, yields a work with its rows, gets their results, and returns the answer;
`/interpolate` asks twice.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.data.table.given import given_row
from jensen.inference.codes import InterpolationPath
from jensen.inference.columns import checked
from jensen.inference.predict_column import target_column
from jensen.recipe.family import ImputationWish, SamplingWish
from jensen.run.labels import sample_labels
from jensen.serve import bodies
from jensen.serve.answers import (
    CSV,
    JSON,
    NPY,
    PNG,
    Answer,
    base64_pictures,
    brightness,
    of_columns,
    of_prepared,
    of_values,
)
from jensen.serve.asks import (
    Ask,
    AskDecode,
    AskEncode,
    AskImpute,
    AskInterpolate,
    AskPredict,
    AskReconstruct,
    AskSample,
    AskScore,
)
from jensen.serve.limits import Limits
from jensen.serve.problems import Problem
from jensen.serve.served import Served
from jensen.serve.work import (
    AbstractWork,
    Between,
    Decode,
    Encode,
    Impute,
    Imputed,
    Predict,
    Reconstruct,
    Row,
    Sample,
    SampleGiven,
    Score,
)

Conversation = Generator[tuple[AbstractWork, Sequence[Row]], list[Any], Answer]
FEW_DRAWS, TABLE_DRAWS = 5, 100  # default numbers of draws of /impute, as of `jensen impute`


@dataclass(frozen=True)
class Content:
    """A body that is no JSON: its content type and its bytes."""

    kind: str
    body: bytes


# ---------------------------------------------------------------------------------------------- samples


def sample(served: Served, ask: AskSample, limits: Limits) -> Conversation:
    """Samples first..first+n-1 of a seed."""
    run = served.run
    bodies.refuse_size(ask.n, served, limits)
    work, labels, notes = _sampling(served, ask)
    rows = [
        Row(ask.seed, ask.first + place, label=None if labels is None else int(labels[place])) for place in range(ask.n)
    ]
    found = yield work, rows
    beside: dict[str, Any] = {}
    if labels is not None:
        beside["labels"] = [run.spec.label_name(label) for label in labels.tolist()]
    if notes:
        beside["notes"] = list(notes)
    return of_prepared(found, served, beside, png=ask.png)


def _sampling(served: Served, ask: AskSample) -> tuple[AbstractWork, Tensor | None, tuple[str, ...]]:
    """The work, the label of each sample, and notes about given cells."""
    run = served.run
    if ask.given is not None:
        return _given(served, ask)
    if ask.mean and served.table is not None:
        raise Problem(422, "mean for a table", "samples, as the cells have no common mean", "leave mean out")
    wanted = "in-turn" if ask.label is None else str(ask.label)
    wish = SamplingWish(steps=ask.steps, guidance=ask.guidance)
    run.family.sampling(run.model, run.recipe, wish)  # raises for a wish that the model cannot fulfil
    return Sample(served, ask.mean, wish), sample_labels(run, wanted, ask.n, seed=ask.seed, first=ask.first), ()


def _given(served: Served, ask: AskSample) -> tuple[AbstractWork, None, tuple[str, ...]]:
    if served.table is None:
        raise Problem(422, f"given for {served.name}", "a run on a table", "leave given out")
    if ask.steps is not None or ask.guidance is not None or ask.label is not None:
        raise Problem(422, "given beside label, steps or guidance", "given alone", "leave the others out")
    run = served.run
    checked(run.model)
    numbers, notes = given_row(served.table, ask.given or {})
    raw = torch.from_numpy(numbers)[None]
    x = run.spec.preparation(torch.where(raw.isinf(), torch.nan, raw))[0]
    x = torch.where(raw[0].isinf(), torch.inf, x)
    return SampleGiven(served, tuple(x.tolist())), None, notes


# ---------------------------------------------------------------------------------------------- examples


def score(served: Served, ask: AskScore, limits: Limits) -> Conversation:
    """The bound of each example, its standard error, and the share of test examples that score lower."""
    x, notes = _examples(served, ask.x, limits)
    found = yield Score(served), [Row(ask.seed, place, one) for place, one in enumerate(x)]
    percentiles = [served.percentile(bound) for bound, _ in found]
    scores = [
        {"bound": bound, "error": error, "unit": "nats", "percentile": percentile}
        for (bound, error), percentile in zip(found, percentiles, strict=True)
    ]
    columns = {
        "example": range(len(found)),
        "bound_nats": [bound for bound, _ in found],
        "standard_error_nats": [error for _, error in found],
        "percentile": percentiles,
    }
    return of_columns(columns, {"scores": scores, "of": served.bound, **notes}, served)


def encode(served: Served, ask: AskEncode, limits: Limits) -> Conversation:
    """The code of each example."""
    x, notes = _examples(served, ask.x, limits)
    found = yield Encode(served), [Row(ask.seed, place, one) for place, one in enumerate(x)]
    z = torch.stack([code for code, _ in found]).numpy()
    sigma = None if found[0][1] is None else torch.stack([scale for _, scale in found]).numpy()
    return Answer({"z": z, **({} if sigma is None else {"sigma": sigma}), **notes}, array=z)


def decode(served: Served, ask: AskDecode, limits: Limits) -> Conversation:
    """The mean of p(x|z) for each code."""
    z = _codes(served, ask.z, limits)
    found = yield Decode(served), [Row(number=place, x=one) for place, one in enumerate(z)]
    return _decoded(found, served, png=ask.png)


def _decoded(found: Sequence[Tensor], served: Served, *, png: bool) -> Answer:
    if served.table is not None:
        return of_values(torch.stack(list(found)).numpy(), None, served, {}, png=False)
    return of_prepared(found, served, {}, png=png)


def reconstruct(served: Served, ask: AskReconstruct, limits: Limits) -> Conversation:
    """Each example, encoded and decoded again."""
    x, notes = _examples(served, ask.x, limits)
    found = yield Reconstruct(served), [Row(ask.seed, place, one) for place, one in enumerate(x)]
    return of_prepared(found, served, notes, png=ask.png)


def interpolate(served: Served, ask: AskInterpolate, limits: Limits) -> Conversation:
    """The points between the codes of a and b, decoded."""
    bodies.refuse_size(ask.n, served, limits)
    ends = [_examples(served, one, limits)[0] for one in (ask.a, ask.b)]
    if any(len(end) != 1 for end in ends):
        raise Problem(422, "a or b of several examples", "one example each", "send one example each")
    codes = yield Encode(served), [Row(x=end[0]) for end in ends]
    work = Between(served, ask.n, InterpolationPath(ask.path))
    (path,) = yield work, [Row(x=torch.stack([codes[0][0], codes[1][0]]))]
    found = yield Decode(served), [Row(number=place, x=z) for place, z in enumerate(path)]
    return _decoded(found, served, png=True)


def predict(served: Served, ask: AskPredict, limits: Limits) -> Conversation:
    """p(y|x) of each example."""
    place = None
    if served.table is not None:
        name = ask.target or served.run.spec.options.labels
        if name is None:
            raise Problem(422, "no target", "the column to predict", "send target")
        place = target_column(served.table, name)
    elif ask.target is not None:
        raise Problem(422, "a target for a run that is not of a table", "no target", "leave target out")
    x, notes = _examples(served, ask.x, limits, missing=served.table is not None)
    rows = [Row(ask.seed, number, one) for number, one in enumerate(x)]
    found = yield Predict(served, column=place), rows
    columns: dict[str, Sequence[Any]] = {"example": range(len(found))}
    if "predicted" in found[0]:
        columns |= {"predicted": [one["predicted"] for one in found]}
        columns |= {f"p({name})": [one["probabilities"][name] for one in found] for name in found[0]["probabilities"]}
    elif len(found[0]["mean"]) == 1:
        columns |= {name: [one[name][0] for one in found] for name in found[0]}
    return of_columns(columns, {"predictions": found, **notes}, served)


# ---------------------------------------------------------------------------------------------- missing values


def impute(served: Served, ask: AskImpute, limits: Limits) -> Conversation:
    """Missing values of examples: a value for each and its 95 % interval; observed values stay as they are."""
    run, table = served.run, served.table
    x, observed, notes = _incomplete(served, ask, limits)
    draws = ask.draws or (FEW_DRAWS if table is None else TABLE_DRAWS)
    bodies.refuse_numbers(draws * x.numel(), limits)
    wish = ImputationWish(**{each.name: getattr(ask, each.name) for each in fields(ImputationWish)})
    imputer = run.family.imputer(wish, run.spec)  # raises for a wish that the family cannot fulfil
    if ask.draws is not None or wish != ImputationWish():  # the defaults are for every size of examples
        bodies.refuse_numbers(imputer.copies(draws) * math.prod(run.spec.shape), limits)
    open_rows = [place for place in range(len(x)) if not bool(observed[place].all())]
    rows = [Row(ask.seed, place, x[place], observed=observed[place]) for place in open_rows]
    found: list[Imputed] = []
    if rows:
        found = yield Impute(served, draws, wish), rows
    parts = {"x": x.double().numpy().copy(), "low": x.double().numpy().copy(), "high": x.double().numpy().copy()}
    for place, one in zip(open_rows, found, strict=True):
        for name, values in parts.items():
            values[place] = getattr(one, name)
    if table is not None:
        low, high = (of_values(parts[name], None, served, {}, png=False).fields["x"] for name in ("low", "high"))
        return of_values(parts["x"], None, served, {"low": low, "high": high, **notes}, png=False)
    beside = {"low": parts["low"], "high": parts["high"], **notes}
    pictures = partial(brightness, parts["x"], served) if run.spec.pictured else None
    if ask.png and pictures is not None:
        beside["png"] = base64_pictures(pictures())
    return Answer({"x": parts["x"], **beside}, array=parts["x"], pictures=pictures)


def _incomplete(served: Served, ask: AskImpute, limits: Limits) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Raw examples, which of their values are observed, and notes."""
    if served.table is not None:
        x, notes = _examples(served, ask.x, limits, missing=True)
        known = ~x.isnan()
    else:
        given = _array(served, ask.x, limits)
        x, notes = bodies.examples(given, served, limits, missing=True), {}
        known = torch.from_numpy(~np.isnan(given.astype(np.float64))).reshape(x.shape)
    if ask.mask is None:
        return x, known, notes
    mask = bodies.npy(bodies.from_base64(ask.mask["npy"], "npy"), limits) if _is_npy(ask.mask) else None
    mask = bodies.nested(ask.mask, "mask") if mask is None else mask
    one = served.run.spec.shape if served.table is None else (len(served.table.columns),)
    if mask.shape not in ((len(x), *one), one):
        raise Problem(422, f"a mask of shape {mask.shape}", f"{one} or {(len(x), *one)}", "reshape it")
    if not np.isin(mask, (0, 1)).all():
        raise Problem(422, "a mask with other values than 0 and 1", "1 or true: observed", "correct it")
    wide = torch.from_numpy(np.broadcast_to(mask, (len(x), *one)) != 0)
    if served.table is not None:
        wide = wide[:, [field.column for field in served.table.fields]]
    return x, known & wide, notes


def _is_npy(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"npy"}


# ---------------------------------------------------------------------------------------------- helpers


def _examples(served: Served, x: Any, limits: Limits, *, missing: bool = False) -> tuple[Tensor, dict[str, Any]]:
    """Raw examples (n, *shape) from x of a request, and notes about changed cells for the answer."""
    table = served.table
    if table is None:
        return bodies.examples(_array(served, x, limits), served, limits, missing=missing), {}
    if isinstance(x, Content):
        if x.kind != CSV:
            raise Problem(415, f"a body of type {x.kind}", f"{CSV} or {JSON} for a run on a table", "convert it")
        cells = bodies.csv_cells(x.body, table, limits)
    else:
        cells = bodies.json_cells(x, table, limits)
    rows = bodies.table_rows(cells, served, missing=missing)
    return rows.raw, {"notes": list(rows.notes)} if rows.notes else {}


def _array(served: Served, x: Any, limits: Limits) -> np.ndarray:
    if not isinstance(x, Content):
        return bodies.numbers(x, served, limits)
    if x.kind == NPY:
        return bodies.npy(x.body, limits)
    if x.kind == PNG:
        return bodies.png(x.body, served, limits)
    raise Problem(415, f"a body of type {x.kind}", f"{JSON}, {NPY} or {PNG}", "convert it")


def _codes(served: Served, z: Any, limits: Limits) -> Tensor:
    """Codes (n, latent), float32."""
    latent = served.run.model.latent_dims
    if isinstance(z, Content):
        given = _array(served, z, limits)
    else:
        given = bodies.npy(bodies.from_base64(z["npy"], "npy"), limits) if _is_npy(z) else bodies.nested(z, "z")
    codes = given[None] if given.ndim == 1 else given
    if codes.ndim != 2 or codes.shape[1] != latent or not len(codes):
        raise Problem(422, f"z of shape {given.shape}", f"(n, {latent})", "reshape it")
    bodies.refuse_size(len(codes), served, limits)
    with np.errstate(over="ignore"):
        narrow = codes.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise Problem(422, "z with values that are not finite", "finite numbers", "correct z")
    return torch.from_numpy(narrow)


@dataclass(frozen=True)
class Verb:
    """A verb: the type of its settings, its conversation, and the content types of bodies beside JSON."""

    ask: type[Ask]
    talk: Callable[[Served, Any, Limits], Conversation]
    content: str | None = "x"
    """The field that a body of another type than JSON gives."""


VERBS: dict[str, Verb] = {
    "sample": Verb(AskSample, sample, None),
    "score": Verb(AskScore, score),
    "reconstruct": Verb(AskReconstruct, reconstruct),
    "encode": Verb(AskEncode, encode),
    "decode": Verb(AskDecode, decode, "z"),
    "impute": Verb(AskImpute, impute),
    "predict": Verb(AskPredict, predict),
    "interpolate": Verb(AskInterpolate, interpolate, None),
}
