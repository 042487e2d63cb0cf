from __future__ import annotations

import inspect
import re

import pytest

from kind_core import errors
from kind_core.errors import CheckpointError, KindError


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    defined = dict(inspect.getmembers(errors, inspect.isclass))
    assert drawn == set(defined)
    assert all(issubclass(error, KindError) for error in defined.values())


def test_an_error_shows_message_and_hint() -> None:
    error = CheckpointError("no checkpoint folder at x", "give --checkpoint a folder")
    assert str(error) == "no checkpoint folder at x (give --checkpoint a folder)"
    assert (error.message, error.hint) == ("no checkpoint folder at x", "give --checkpoint a folder")


def test_an_error_without_a_hint_is_its_message() -> None:
    assert str(KindError("broken")) == "broken"


def test_one_except_catches_them_all() -> None:
    with pytest.raises(KindError):
        raise CheckpointError("x")
