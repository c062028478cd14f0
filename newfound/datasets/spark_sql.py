"""Ibis' SQL for Spark, where it lacks an operation or means something else by it than DuckDB's."""

from __future__ import annotations

from typing import Any, Final

import sqlglot.expressions as sge
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

# Texts that DuckDB reads as numbers: Java takes 5d and 0x1p3 for numbers as well.
_NUMBER: Final = r"^\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))\s*$"
# Dates and times that both read, and alike: Spark takes a lone year or a lone hour for a moment as well.
_MOMENT: Final = r"^\d{4}-\d{1,2}-\d{1,2}(( |T)\d{1,2}:\d{1,2}(:\d{1,2}(\.\d+)?( ?(Z|UTC|[+-]\d{2}(:?\d{2})?))?)?)?$"


class SparkSQL(PySparkCompiler):  # type: ignore[misc]
    """The compiler of every expression that runs on Spark."""

    __slots__ = ()

    def visit_NonNullLiteral(self, op: Any, *, value: Any, dtype: Any) -> Any:
        """Literals, an empty array with its type."""
        if dtype.is_array() and not value:
            return self.cast(self.f.array(), dtype)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_ArrayCollect(
        self, op: Any, *, arg: Any, where: Any, order_by: Any, include_null: bool, distinct: bool
    ) -> Any:
        """Values in order: Spark's aggregates have none, so each is collected behind its keys, and they are sorted."""
        if not order_by or distinct or any(key.args.get("desc") for key in order_by):
            return super().visit_ArrayCollect(
                op, arg=arg, where=where, order_by=order_by, include_null=include_null, distinct=distinct
            )
        fields = [(f"key{at}", key.this) for at, key in enumerate(order_by)] + [("value", arg)]
        row = self.f.anon.named_struct(*(part for name, value in fields for part in (sge.convert(name), value)))
        each = sge.to_identifier("each")
        value = sge.Lambda(this=sge.Dot(this=each, expression=sge.to_identifier("value")), expressions=[each])
        return self.f.transform(self.f.array_sort(self.f.collect_list(row)), value)

    def visit_TimestampDelta(self, op: Any, *, part: Any, left: Any, right: Any) -> Any:
        """Whole units between two moments."""
        units = {"MS": "MILLISECOND", "US": "MICROSECOND"}
        name = getattr(part, "this", part)
        return self.f.anon.timestampdiff(sge.Var(this=units.get(str(name).upper(), str(name))), right, left)

    def visit_StringSplit(self, op: Any, *, arg: Any, delimiter: Any) -> Any:
        """Parts between a text, which Spark would take for a pattern."""
        return self.f.anon.split(arg, self.f.concat(sge.convert("\\Q"), delimiter, sge.convert("\\E")))

    def visit_TryCast(self, op: Any, *, arg: Any, to: Any) -> Any:
        """Numbers and moments as DuckDB reads them, null for any other text."""
        if not op.arg.dtype.is_string():
            return super().visit_TryCast(op, arg=arg, to=to)
        if to.is_floating():
            pattern, plain = _NUMBER, self.f.regexp_replace(arg, r"(?<=\d)_(?=\d)", "")
        else:
            pattern, plain = _MOMENT, self.f.regexp_replace(self.f.translate(arg, "/", "-"), " +", " ")
        read = super().visit_TryCast(op, arg=plain, to=to)
        return self.if_(self.f.anon.rlike(plain, sge.convert(pattern)), read, sge.Null())
