"""Lines of a large JSONL file that are about one problem, without reading the others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError


def rows_about(path: Path, prompt_id: str) -> Iterator[tuple[int, Any]]:
    """(line from 1, row) of those rows of a JSONL file that are about this prompt; none without a file.

    Lines that do not have the id in them are not parsed.
    """
    if not path.is_file():
        return
    sought = {json.dumps(prompt_id, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not any(text.encode("utf-8", "surrogatepass") in line for text in sought):
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ChainForgeError(
                    f"{path}, line {number}: not JSON: {error}", "run the step that writes it again"
                ) from error
            if isinstance(row, dict) and prompt_id in (row.get("prompt_id"), row.get("id")):
                yield number, row
