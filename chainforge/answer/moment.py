"""Times of day and dates: `3:30 PM`, `15:30`, `May 1, 2024`, `2024-05-01`."""

import re
from datetime import date, time

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
NAMED = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
DATE = re.compile(
    rf"{NAMED} {DAY},? (?P<year>\d{{4}})"
    rf"|{DAY.replace('day', 'day2')} (?:of )?{NAMED.replace('month', 'month2')},? (?P<year2>\d{{4}})"
    r"|(?P<year3>\d{4})[-/](?P<month3>\d{1,2})[-/](?P<day3>\d{1,2})"
)
TIME = re.compile(r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?: ?(?P<half>[ap])\.? ?m\.?)?")


def moment(text: str) -> date | time | None:
    """The time or the date that a text in plain notation is; None for anything else, `5/1/2024` included."""
    text = text.lower().strip().removesuffix(".")
    try:
        if found := DATE.fullmatch(text):
            parts = {name.rstrip("23"): part for name, part in found.groupdict().items() if part}
            month = parts["month"]
            return date(
                int(parts["year"]),
                int(month) if month.isdigit() else MONTHS.index(month) + 1,
                int(parts["day"]),
            )
        if found := TIME.fullmatch(text):
            hour, half = int(found["hour"]), found["half"]
            if half and not 1 <= hour <= 12:
                return None
            hour = hour % 12 + 12 * (half == "p") if half else hour
            return time(hour, int(found["minute"]), int(found["second"] or 0))
    except ValueError:  # there is no 31st of June
        return None
    return None
