"""Dates and times as text: the formats that are known, the days and seconds of a text, and the text of both."""

import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip

_PATTERNS = {
    "%Y": r"(?P<Y>(?:1[0-9]|20|21)\d\d)",
    "%y": r"(?P<y>\d\d)",
    "%m": r"(?P<m>0[1-9]|1[0-2])",
    "%-m": r"(?P<m>[1-9]|1[0-2])",
    "%d": r"(?P<d>0[1-9]|[12]\d|3[01])",
    "%-d": r"(?P<d>[1-9]|[12]\d|3[01])",
    "%b": f"(?P<b>{'|'.join(month[:3] for month in _MONTHS)})",
    "%B": f"(?P<B>{'|'.join(_MONTHS)})",
    "%H": r"(?P<H>[01]\d|2[0-3])",
    "%-H": r"(?P<H>1?\d|2[0-3])",
    "%I": r"(?P<I>0[1-9]|1[0-2])",
    "%-I": r"(?P<I>[1-9]|1[0-2])",
    "%p": r"(?P<p>AM|PM)",
    "%M": r"(?P<M>[0-5]\d)",
    "%S": r"(?P<S>[0-5]\d)",
    "%f": r"(?P<f>\d{6})",
    "%3f": r"(?P<f>\d{3})",
}
"""The pattern of each part of a format. %-d has no leading zero, and %3f are milliseconds."""

DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y",
    "%m-%d-%Y", "%-m/%-d/%Y", "%-d/%-m/%Y", "%-d.%-m.%Y", "%-d-%-m-%Y", "%-m-%-d-%Y", "%Y-%-m-%-d", "%Y/%-m/%-d",
    "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%-m/%-d/%y", "%-d/%-m/%y", "%-d.%-m.%y", "%y-%m-%d", "%d %b %Y", "%d-%b-%Y",
    "%d-%b-%y", "%-d %b %Y", "%-d-%b-%Y", "%b %d, %Y", "%b %-d, %Y", "%d %B %Y", "%-d %B %Y", "%B %d, %Y", "%B %-d, %Y",
    "%Y-%m", "%m/%Y",
)  # fmt: skip
_CLOCKS = ("%H:%M:%S", "%H:%M", "%H:%M:%S.%3f", "%H:%M:%S.%f", "%-H:%M", "%-H:%M:%S", "%I:%M %p", "%-I:%M %p",
           "%I:%M:%S %p", "%-I:%M:%S %p")  # fmt: skip
_ENDS = ("", *(f"{between}{clock}{zone}" for between in (" ", "T", ", ") for clock in _CLOCKS
               for zone in ("", "Z", "+00:00")))  # fmt: skip

_OFFSET = re.compile(r"(?<=\d)[+-]\d\d:?\d\d$")
_PARTS = re.compile(r"%-?\d?[a-zA-Z]")
ENOUGH = 50
"""Number of texts by which formats are ruled out before all texts are looked at."""


@lru_cache(maxsize=4096)
def pattern_of(form: str) -> str:
    """The regular expression of all texts in the format `form`."""
    pieces, end = [], 0
    for part in _PARTS.finditer(form):
        pieces += [re.escape(form[end : part.start()]), _PATTERNS[part.group()]]
        end = part.end()
    return f"^{''.join(pieces)}{re.escape(form[end:])}$"


def known(form: str) -> bool:
    """Whether all parts of a format are known, and no part occurs twice.

    >>> known("%d.%m.%Y %H:%M"), known("%j")
    (True, False)
    """
    parts = [part.group() for part in _PARTS.finditer(form)]
    groups = [_PATTERNS[part][4] for part in parts if part in _PATTERNS]
    return bool(parts) and len(groups) == len(parts) and len(set(groups)) == len(groups)


@dataclass(frozen=True)
class Moments:
    """Days after 1970-01-01 and seconds of the day, both (N,) float64, NaN where a text is no date of the format."""

    days: np.ndarray
    seconds: np.ndarray


def formats_of(texts: "pyarrow.Array") -> list[str]:
    """The formats of which all `texts` (without nulls) are dates."""
    from pyarrow import compute

    few = texts[:ENOUGH].to_pylist()
    found = []
    for form in _formats_of_one(few[0]) if few else ():
        if not all(_compiled(form).match(text) for text in few):
            continue
        every = compute.all(compute.match_substring_regex(texts, pattern_of(form))).as_py()
        if every and not np.isnan(moments_of(texts, form).days).any():
            found.append(form)
    return found


def usual_formats(texts: "pyarrow.Array") -> list[str]:
    """The formats of more than half of the first texts (without nulls), which have mistakes among them."""
    few = texts[:10].to_pylist()
    forms = [form for text in few for form in _formats_of_one(text)]
    return [form for form in dict.fromkeys(forms) if 2 * forms.count(form) > len(few)]


def looks_like_date(texts: list[str]) -> bool:
    """Whether the texts, which are numbers, may be dates without signs between their parts, such as 20201231."""
    return bool(texts) and all(_compiled("%Y%m%d").match(text) for text in texts)


@lru_cache(maxsize=4096)
def _compiled(form: str, begins: bool = False) -> re.Pattern[str]:
    """The pattern of a format, or of the beginning of a text."""
    pattern = pattern_of(form)
    return re.compile(pattern[:-1] if begins else pattern)


def _formats_of_one(text: str) -> list[str]:
    """The formats of which one text is a date."""
    if not text[-1:].isdigit() and not text.endswith(("M", "Z")):  # words are ruled out at once
        return []
    days = [day for day in DATES if _compiled(day, True).match(text)]
    offset = _OFFSET.search(text)  # an hour from Greenwich that all cells share is part of the format
    ends = [f"{between}{clock}{offset[0]}" for between in " T" for clock in _CLOCKS] if offset else []
    forms = [clock for clock in _CLOCKS if ":" in text] + [day + end for day in days for end in (*_ENDS, *ends)]
    return [form for form in dict.fromkeys(forms) if _compiled(form).match(text)]


def moments_of(texts: "pyarrow.Array", form: str) -> Moments:
    """The days and the seconds of texts in the format `form`; NaN for nulls and other texts."""
    from pyarrow import compute

    parts = compute.extract_regex(texts, pattern_of(form))
    missing = parts.is_null().to_numpy(zero_copy_only=False)
    names = [parts.type.field(number).name for number in range(parts.type.num_fields)]

    def number(name: str, default: int) -> np.ndarray:
        if name not in names:
            return np.full(len(texts), default)
        return _integers(compute.struct_field(parts, name))

    year = number("Y", 1970) if "y" not in names else _century(number("y", 0))
    month = number("m", 1)
    for name, length in (("b", 3), ("B", None)):
        if name in names:
            spelled = [name[:length] for name in _MONTHS]
            found = compute.struct_field(parts, name)
            month = _places(found, spelled) + 1
    hour = number("H", 0)
    if "I" in names:
        afternoon = _places(compute.struct_field(parts, "p"), ["AM", "PM"])
        hour = number("I", 12) % 12 + 12 * afternoon
    months = (year.astype("int64") - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype("int64")
    days = first + number("d", 1) - 1
    valid = ~missing & (days < (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype("int64"))
    fraction = number("f", 0) / (1e3 if "%3f" in form else 1e6)
    seconds = 3600.0 * hour + 60 * number("M", 0) + number("S", 0) + fraction
    return Moments(np.where(valid, days, np.nan), np.where(valid, seconds, np.nan))


def _integers(texts: "pyarrow.Array") -> np.ndarray:
    import pyarrow
    from pyarrow import compute

    return compute.fill_null(compute.cast(texts, pyarrow.int64()), 1).to_numpy(zero_copy_only=False)


def _places(texts: "pyarrow.Array", values: list[str]) -> np.ndarray:
    import pyarrow
    from pyarrow import compute

    return compute.fill_null(compute.index_in(texts, value_set=pyarrow.array(values)), 0).to_numpy(zero_copy_only=False)


def _century(year: np.ndarray) -> np.ndarray:
    """The full year of two digits, as strptime has it: 69 to 99 are 1969 to 1999."""
    return np.where(year >= 69, 1900 + year, 2000 + year)


def is_clock(form: str) -> bool:
    """Whether a format is that of a time without a date.

    >>> is_clock("%H:%M"), is_clock("%d.%m.%Y")
    (True, False)
    """
    return not any(part.group()[-1] in "YymdbB" for part in _PARTS.finditer(form))


def texts_of(days: np.ndarray, seconds: np.ndarray, form: str) -> "pyarrow.Array":
    """The texts of days and seconds (N,) in the format `form`; null where the day is NaN."""
    import pyarrow
    from pyarrow import compute

    first_clock = next((part.start() for part in _PARTS.finditer(form) if part.group()[-1] in "HIpMSf"), len(form))
    missing = np.isnan(days)
    pieces = []
    for values, piece, written in (
        (days, form[:first_clock], _written_day),
        (seconds, form[first_clock:], _written_time),
    ):
        distinct, places = np.unique(np.where(missing, 0, values), return_inverse=True)
        texts = pyarrow.array([written(float(value), piece) for value in distinct], pyarrow.string())
        pieces.append(texts.take(pyarrow.array(places)))
    joined = compute.binary_join_element_wise(*pieces, "")
    return compute.if_else(pyarrow.array(missing), pyarrow.scalar(None, pyarrow.string()), joined)


def _written_day(day: float, form: str) -> str:
    moment = date(1970, 1, 1) + timedelta(days=int(day))
    values = {
        "%Y": f"{moment.year:04}",
        "%y": f"{moment.year % 100:02}",
        "%m": f"{moment.month:02}",
        "%-m": f"{moment.month}",
        "%d": f"{moment.day:02}",
        "%-d": f"{moment.day}",
        "%b": _MONTHS[moment.month - 1][:3],
        "%B": _MONTHS[moment.month - 1],
    }
    return _PARTS.sub(lambda part: values[part.group()], form)


def _written_time(second: float, form: str) -> str:
    whole = round(second * 1_000_000)
    minutes, micro = divmod(whole, 60_000_000)
    hour, minute = divmod(minutes, 60)
    values = {
        "%H": f"{hour:02}",
        "%-H": f"{hour}",
        "%I": f"{(hour - 1) % 12 + 1:02}",
        "%-I": f"{(hour - 1) % 12 + 1}",
        "%p": "PM" if hour >= 12 else "AM",
        "%M": f"{minute:02}",
        "%S": f"{micro // 1_000_000:02}",
        "%f": f"{micro % 1_000_000:06}",
        "%3f": f"{micro % 1_000_000 // 1000:03}",
    }
    return _PARTS.sub(lambda part: values[part.group()], form)
