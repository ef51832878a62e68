"""Dates in words: "March 3, 2020", "3rd of March 2020", "Tuesday, 3 March 2020" name one day."""

from __future__ import annotations

import re
from typing import NamedTuple

_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:on )?(?:(?P<weekday>mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|satur|sun)(?:day)?\.?,? )?(?:the )?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{3,4})"
_FORMS = [
    re.compile(rf"{_WEEKDAY}{_MONTH} (?:the )?{_DAY}(?:,? {_YEAR})?"),
    re.compile(rf"{_WEEKDAY}{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?"),
]
_HINT = re.compile(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text(?:bf|it|rm)?|mbox|mathrm)\s?(?=\{)|\^(?=\{?\s?\\?(?:st|nd|rd|th|text))|[{}$]|\\(?=[ ,])")


class Date(NamedTuple):
    month: str
    day: int
    year: int | None
    weekday: str | None


def read(text: str) -> Date | None:
    """The day that `text` names and nothing else, or None."""
    if len(text) > 120 or not _HINT.search(text):
        return None
    plain = " ".join(_MARKUP.sub("", text).split()).lower().strip(" .,")
    for form in _FORMS:
        match = form.fullmatch(plain)
        if match and 1 <= int(match["day"]) <= 31:
            year, weekday = match["year"], match["weekday"]
            month = match["month"][:3]
            return Date(month, int(match["day"]), int(year) if year else None, weekday[:3] if weekday else None)
    return None


def same(gold: Date, given: Date) -> bool:
    """The same day; a weekday may be left out, a year may not."""
    weekdays = {gold.weekday, given.weekday} - {None}
    return gold[:3] == given[:3] and len(weekdays) < 2
