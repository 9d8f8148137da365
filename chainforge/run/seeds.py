"""Every random choice derives from (seed, names…): no global generator, no order to depend on."""

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for this purpose; the same on every machine. `derive(17, "grpo", 3, "p1")`."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
