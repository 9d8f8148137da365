"""One line of a journal: JSON with a checksum at its end, read back only if it is what was written."""

import json
import re
import zlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from chainforge.providers.nesting import shallow, whole_number

SCHEMA = 2  # of the lines behind a `run` line that says so; 1 had no checksums
SUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}\Z')
SUM_LENGTH = 20  # bytes
Record = Mapping[str, Any]

TEXT_OR_NONE = (str, type(None))
ABOUT = {"fingerprint": str, "prompt_id": str, "sample": int, "attempt": int}
FIELDS: Mapping[str, Mapping[str, Any]] = {  # by kind; whatever else is there is passed over
    "run": {"teacher": dict, "identity": dict, "price_table": TEXT_OR_NONE},
    "sent": ABOUT | {"most_usd": str},
    "answer": ABOUT
    | {"final": bool, "cause": str, "at": str, "model": str, "finish": str, "usage": dict}
    | {"reasoning_source": TEXT_OR_NONE, "synthetic": bool, "cost_usd": str, "raw": dict},
    "failed": ABOUT | {"final": bool, "cause": str, "billed": bool, "message": str},
    "written_off": {"billed_usd": str},
}
MONEY = {"most_usd", "cost_usd", "billed_usd", "possibly_usd"}
TOKENS = ("hit", "miss", "output", "reasoning")


class NewerVersion(ValueError):
    """A line that a later ChainForge wrote."""


def write_line(record: Record) -> bytes:
    """The line, its end included. What JSON allows and orjson does not is made fit: the answer was paid for.

    Halves of a character are joined, or replaced where one is missing; NaN and the like become null.
    """
    try:
        text = orjson.dumps(record)
    except (orjson.JSONEncodeError, RecursionError):
        plain = json.loads(
            json.dumps(shallow(record)),
            parse_constant=lambda _: None,
            parse_int=whole_number,
        )
        loose = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        text = loose.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return b'%s,"crc32":"%08x"}\n' % (text[:-1], zlib.crc32(text))


def read_line(line: bytes) -> tuple[Record, bool]:
    """(the record, whether it has a checksum). Raises ValueError that says what is wrong with it."""
    line = line.rstrip(b"\r\n")
    if found := SUM.match(line[-SUM_LENGTH:]):
        line = line[:-SUM_LENGTH] + b"}"
        if zlib.crc32(line) != int(found[1], 16):
            raise ValueError("its checksum is another: it was changed after it was written")
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    check_line(record)
    return record, bool(found)


def check_line(record: Any) -> None:
    """Raise ValueError for a record that lacks what its kind needs, NewerVersion for an unknown one."""
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError("not a record: it has no kind")  # noqa: TRY004 - one kind of error
    kind = record["kind"]
    if kind == "run" and isinstance(said := record.get("schema", 1), int) and said > SCHEMA:
        raise NewerVersion(f"a later version of ChainForge wrote it (schema {said}, this one knows {SCHEMA})")
    if kind not in FIELDS:
        raise NewerVersion(f"it is of a kind that this version does not know: {kind!r:.40}")
    for name, wanted in FIELDS[kind].items():
        if name not in record:
            raise ValueError(f"the field {name!r} is missing")
        value = record[name]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise ValueError(f"the field {name!r} cannot be {value!r:.40}")
    for name in MONEY & record.keys():
        check_money(name, record[name])
    for name in TOKENS if kind == "answer" else ():
        count = record["usage"].get(name)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"the field 'usage' has no number of {name} tokens")


def check_money(name: str, value: Any) -> None:
    """Raise ValueError unless it is the text of a sum of USD."""
    try:
        fits = isinstance(value, str) and Decimal(value).is_finite() and Decimal(value) >= 0
    except InvalidOperation:
        fits = False
    if not fits:
        raise ValueError(f"the field {name!r} is no sum of USD: {value!r:.40}")
