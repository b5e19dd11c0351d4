"""JSON whose every value is checked before it is used: the error names the file and the place in it."""

import json
import re
from typing import Any

from voice_biometrics.errors import InputError

MAX_TEXT = 1000  # characters
MAX_NUMBER = 1e300  # so that no whole number overflows as a float
NAME = re.compile(r"[a-z0-9_]{1,32}")


def parse_object(text: bytes, file: str) -> "CheckedObject":
    """Return the JSON object in ``text``; InputError for anything else, a name given twice, or NaN."""
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: malformed JSON: {error}") from error
    return CheckedObject(content, file, "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class CheckedObject:
    """A JSON object that hands out its values checked, and knows which were not asked for."""

    def __init__(self, content: Any, file: str, place: str) -> None:
        """``place`` is the way from the top of the file, as in ``embedders.fp32``."""
        self.file, self.place = file, place
        if not isinstance(content, dict):
            raise InputError(f"{file}: {place or 'the content'}: expected an object, found {type(content).__name__}")
        self.content = content
        self.asked: set[str] = set()

    def fault(self, key: str, expected: str) -> InputError:
        """Return the error for the value of ``key``."""
        place = f"{self.place}.{key}".strip(".")
        found = repr(self.content[key])[:60] if key in self.content else "nothing"
        return InputError(f"{self.file}: {place}: expected {expected}, found {found}")

    def value(self, key: str) -> Any:
        """Return a value as it is, None when it is missing."""
        self.asked.add(key)
        return self.content.get(key)

    def text(self, key: str) -> str:
        """Return text that can be printed anywhere, up to 1,000 characters."""
        value = self.value(key)
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_TEXT:
            raise self.fault(key, f"1 to {MAX_TEXT} printable characters")
        return value

    def number(self, key: str, lowest: float = -1e9, highest: float = 1e9) -> float:
        """Return a finite number from ``lowest`` to ``highest``."""
        value = self.value(key)
        if not is_number(value) or not lowest <= value <= highest:
            raise self.fault(key, f"a number from {lowest:g} to {highest:g}")
        return float(value)

    def count(self, key: str, lowest: int = 0, highest: int = 10**12) -> int:
        """Return a whole number from ``lowest`` to ``highest``."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise self.fault(key, f"a whole number from {lowest:,} to {highest:,}")
        return value

    def numbers(self, key: str, highest_count: int) -> tuple[float, ...]:
        """Return a list of up to ``highest_count`` finite numbers."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) > highest_count or not all(map(is_number, value)):
            raise self.fault(key, f"a list of up to {highest_count:,} finite numbers")
        return tuple(float(item) for item in value)

    def object(self, key: str) -> "CheckedObject":
        """Return an object inside this one."""
        return CheckedObject(self.value(key), self.file, f"{self.place}.{key}".strip("."))

    def objects(self, key: str) -> dict[str, "CheckedObject"]:
        """Return the objects inside an object, by name."""
        parent = self.object(key)
        for name in parent.content:
            if not NAME.fullmatch(name):
                raise parent.fault(ascii(name)[:60], "a name of small letters, digits and _")
        return {name: parent.object(name) for name in parent.content}

    def close(self) -> None:
        """Raise InputError for a value that nobody asked for."""
        unknown = sorted(set(self.content) - self.asked)
        if unknown:
            raise InputError(f"{self.file}: {self.place or 'the content'}: {ascii(unknown[0])[:60]} is no known entry")


def is_number(value: Any) -> bool:
    """Tell a finite JSON number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
