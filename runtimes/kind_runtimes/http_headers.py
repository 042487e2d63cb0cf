"""What the headers of a request ask for (RFC 9110): the host, a part of a file, gzip."""

from __future__ import annotations

import re

# host[:port] and nothing around it: what finds a user or a path in it finds another host than a browser does
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{0,5})?", re.ASCII)
_RANGE = re.compile(r"bytes=(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<tail>\d{1,18}))", re.ASCII)
_ZERO = re.compile(r"0(\.0*)?", re.ASCII)


def parse_host(text: str) -> str | None:
    """The name or address of a Host header in small letters, without its port; None where it is none."""
    match = _HOST.fullmatch(text)
    return None if match is None else (match["v6"] or match["name"]).lower()


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, or anything, with another weight than zero."""
    is_taken = {}
    for coding in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in coding.split(";"))
        pairs = ([half.strip() for half in part.split("=", 1)] for part in parameters)
        weight = next((pair[1] for pair in pairs if pair[0] == "q" and len(pair) > 1), "1")
        is_taken[name] = _ZERO.fullmatch(weight) is None
    return is_taken.get("gzip", is_taken.get("x-gzip", is_taken.get("*", False)))


def parse_range(text: str, size: int) -> range | None:
    """The bytes of a file of `size` that a Range header asks for, none where it ends before them.

    None stands for the whole file: for no range, for several, and for what is no range.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    if match["tail"]:
        return range(max(0, size - int(match["tail"])), size)
    first, end = int(match["first"]), int(match["last"] or size) + (match["last"] != "")
    return None if match["last"] and end <= first else range(first, max(first, min(end, size)))
