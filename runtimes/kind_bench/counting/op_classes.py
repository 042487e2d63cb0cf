"""The operators of a format by the class of their work; one that is not there is an error, never zero."""

from __future__ import annotations

from collections.abc import Mapping

from kind_bench.counting.work import OpClass
from kind_core.errors import TargetError


class OpClasses(dict[str, OpClass]):
    """The class of each operator's name; `table` has the names by class, with blanks between them."""

    def __init__(self, table: Mapping[OpClass, str], module: str) -> None:
        super().__init__((name, op_class) for op_class, names in table.items() for name in names.split())
        self._module = module

    def find(self, op_type: str, described: str) -> OpClass:
        """The class of `op_type`; raises TargetError, which begins with `described`, where there is no rule for it."""
        if op_type not in self:
            place = f"runtimes/{self._module.replace('.', '/')}.py"
            raise TargetError(f"{described} has no rule to count it by", f"report it, or add it in {place}")
        return self[op_type]
