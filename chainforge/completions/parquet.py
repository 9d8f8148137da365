"""All completions as one Parquet file, which pandas, DuckDB and polars open."""

from itertools import islice
from pathlib import Path
from typing import Any

from chainforge.completions.rows import COLUMNS, Found
from chainforge.defuse import defuse
from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_path

AT_ONCE = 10_000  # rows in memory


def write_parquet(found: Found, path: Path) -> int:
    """Write one row per completion; how many there are. Each reward is a column, `rewards/NAME`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ChainForgeError(
            "writing Parquet needs the package pyarrow", "pip install 'chainforge-r1[parquet]'"
        ) from None
    types = {
        "text": pa.string(),
        "whole number": pa.int64(),
        "number": pa.float64(),
        "yes or no": pa.bool_(),
    }
    names = sorted({name for row in found.rows() for name in row["rewards"]})
    fields = [pa.field(name, types[kind]) for name, kind in COLUMNS.items()]
    schema = pa.schema([*fields, *(pa.field(f"rewards/{name}", pa.float64()) for name in names)])
    rows, count = (_flat(row, names) for row in found.rows()), 0
    with whole_path(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as file:
        while some := list(islice(rows, AT_ONCE)):
            file.write_table(pa.Table.from_pylist(some, schema))
            count += len(some)
    return count


def _flat(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The row with its rewards as columns; halves of characters, which Parquet cannot hold, made visible."""
    rewards = row.pop("rewards")
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    numbers = {f"rewards/{name}": rewards.get(name) for name in names}
    return row | {name: _whole(value) for name, value in texts.items()} | numbers


def _whole(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(defuse(c) if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
    return text
