"""Programs of one class each, called as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from kind_runtimes.engines.runtime import Arrays, ClassPrograms, Program


class Named:
    """Answers with its number and the inputs that it was given."""

    engine = "a test"

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {"number": np.array([self.number]), **inputs}


class Rounding(Named):
    """Has a twin without rounding, whose number is negative."""

    def without_rounding(self) -> Rounding:
        return Rounding(-self.number)


@pytest.fixture
def opened() -> list[int]:
    return []


def _openers(kind: type[Named], opened: list[int]) -> list[Callable[[], Program]]:
    def make(number: int) -> Callable[[], Program]:
        def opener() -> Program:
            opened.append(number)
            return kind(number)

        return opener

    return [make(number) for number in (1, 2, 3)]


def _run(programs: Program, index: int | None) -> int:
    x = np.zeros(1, np.float32)
    outputs = programs({"x": x} if index is None else {"x": x, "class_index": np.array([index], np.int32)})
    assert set(outputs) == {"number", "x"}
    return int(outputs["number"][0])


def test_class_index_picks_the_program(opened: list[int]) -> None:
    programs = ClassPrograms(_openers(Named, opened))
    assert opened == [1]
    assert [_run(programs, index) for index in (2, None, 0, 2)] == [3, 1, 1, 3]
    assert opened == [1, 3]
    assert programs.engine == "a test"


@pytest.mark.parametrize("index", [-1, 3])
def test_unknown_class_is_refused(index: int, opened: list[int]) -> None:
    with pytest.raises(ValueError, match=f"class_index is {index}, expected 0 to 2"):
        _run(ClassPrograms(_openers(Named, opened)), index)


def test_rounding_is_left_out_where_the_programs_can(opened: list[int]) -> None:
    assert not hasattr(ClassPrograms(_openers(Named, opened)), "without_rounding")
    exact = ClassPrograms(_openers(Rounding, opened)).without_rounding()
    assert [_run(exact, index) for index in (0, 2)] == [-1, -3]
