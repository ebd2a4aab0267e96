"""Tables of a user: CSV, Parquet, pandas, or columns by name; errors name the line and the column.

All become Arrow's columns, so that ids are looked up and numbers are parsed in one way. Arrow's
reader of CSV does not say in which line a value was: the csv module finds it, for an error.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._files import in_a_line
from gat_ext.datasets._optional import require

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}
SUFFIXES = (*_SEPARATORS, ".parquet")
_NUMBER = r"^\s*[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s*$"  # also with a decimal comma
_WHOLE = r"^[+-]?\d+\.0+$"
_BLOCK = 2**26  # bytes that Arrow reads at a time, and so the longest line of a CSV file


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        name: The file, or what the table is for.
        columns: Arrow's arrays by name.
        separator: Of a CSV file; "" for others.
    """

    name: str
    columns: dict[str, Any]
    separator: str = ""

    def __len__(self) -> int:
        return next(map(len, self.columns.values()), 0)

    def place(self, row: int, column: str | None = None) -> str:
        """The file, the line and the column of a value, for an error."""
        where = f"row {row} (counted from 0)"
        if self.separator:
            lines = enumerate(_lines(Path(self.name), self.separator))
            where = f"line {next((line for i, (line, _) in lines if i == row + 1), row + 2)}"
        return f"{self.name}, {where}" + ("" if column is None else f", column {column}")

    def require(self, column: str, what: str, argument: str) -> None:
        """Raises ValueError unless there is such a column; the error names the argument, if any."""
        if column not in self.columns:
            by = f", or name it by {argument}" if argument else ""
            raise ValueError(
                f"{self.name} has no column {column!r} for {what}; it has "
                f"{', '.join(map(repr, self.columns))}: rename one{by}"
            )

    def text(self, column: str) -> Any:
        """A column as Arrow's strings without blanks around them; "" where there is no value."""
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        values = self.columns[column]
        if pa.types.is_floating(values.type):  # as pandas stores integers with missing values
            values = compute.if_else(compute.is_nan(values), None, values)
            small = compute.less(compute.abs(values), 2.0**53)
            whole = compute.and_(small, compute.equal(values, compute.floor(values)))
            if compute.all(compute.fill_null(whole, True)).as_py():
                values = compute.cast(values, pa.int64())
        if pa.types.is_nested(values.type) or pa.types.is_null(values.type):
            kind = values.type
            raise ValueError(f"{self.name}, column {column} is of type {kind}; expected text")
        text = _checked(lambda: compute.cast(values, pa.large_string()), f"{self.name}: {column}")
        return compute.utf8_trim_whitespace(compute.fill_null(text, ""))

    def kind(self, column: str) -> str:
        """``"numbers"``, ``"text"``, ``"mixed"`` if some cells are numbers, or another type."""
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        kind = self.columns[column].type
        if pa.types.is_boolean(kind) or _is_numeric(kind):
            return "numbers"
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return str(kind)
        if _as_numbers(self.text(column)) is not None:
            return "numbers"
        some = compute.any(compute.match_substring_regex(self.text(column), _NUMBER)).as_py()
        return "mixed" if some else "text"

    def numbers(self, columns: Sequence[str], otherwise: str) -> Array:
        """Columns as float64 [rows, columns].

        Args:
            columns: Their names.
            otherwise: What to do where a value cannot be filled in, for errors; "": nothing.

        Raises:
            ValueError: A cell is not a finite number.
        """
        found = [self._numbers(column, otherwise) for column in columns]
        return np.stack(found, axis=1) if found else np.empty((len(self), 0))

    def _numbers(self, column: str, otherwise: str) -> Array:
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        values = self.columns[column]
        if pa.types.is_boolean(values.type) or pa.types.is_integer(values.type):
            numbers = compute.cast(values, pa.float64(), safe=False)
        elif _is_numeric(values.type):
            numbers = compute.cast(values, pa.float64())
        else:
            text = self.text(column)
            numbers = _as_numbers(text)
            if numbers is None:
                row = _first(text, lambda part: _as_numbers(part) is None)
                self._refuse(row, column, text[row].as_py(), otherwise)
        result: Array = np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)
        bad = np.flatnonzero(~(np.abs(result) <= np.finfo(np.float32).max))
        if len(bad):
            given = "" if numbers[int(bad[0])].as_py() is None else str(result[bad[0]])
            self._refuse(int(bad[0]), column, given, otherwise)
        return result

    def _refuse(self, row: int, column: str, given: str, otherwise: str) -> None:
        what = f"{given[:60]!r} is not a finite number of float32" if given else "there is no value"
        mend = "write decimals with a point" if "," in given else "fill it in"
        more = f", or {otherwise}" if otherwise else ""
        raise ValueError(
            f"{self.place(row, column)}: {what}; expected a number in every row: {mend}{more}"
        )


def read(given: Any, name: str) -> Table:
    """A table.

    Args:
        given: A path of a .csv, .tsv or .parquet file, a pandas DataFrame, an Arrow table, or a
            mapping from names to columns.
        name: What it is for, in errors, unless it is a file.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: It is something else.
        ValueError: It is empty, damaged, or has two columns of a name.
        ImportError: pyarrow is missing.
    """
    pa = require("pyarrow")
    separator = ""
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        name, suffix = str(path), path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"{path} ends in {suffix!r}; expected one of {', '.join(SUFFIXES)}")
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        if suffix == ".parquet":
            table = _checked(lambda: require("pyarrow.parquet").read_table(path), name)
        else:
            separator, header, lines = _header(path, _SEPARATORS[suffix])
            table = _csv(path, separator, header, lines)
    elif isinstance(given, pa.Table):
        table = given
    elif type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        table = _checked(lambda: pa.Table.from_pandas(given, preserve_index=False), name)
    elif isinstance(given, Mapping):
        columns = {str(key): np.asarray(value) for key, value in given.items()}
        table = _checked(lambda: pa.table(columns), name)
    else:
        raise TypeError(
            f"{name} is a {type(given).__name__}; expected the path of a file "
            f"({', '.join(SUFFIXES)}), a pandas DataFrame, an Arrow table, or a dictionary of "
            "columns"
        )
    _check_names(name, table.column_names)
    if not table.num_rows:
        raise ValueError(f"{name} has no rows; expected at least one")
    columns = {each: _array(table.column(each)) for each in table.column_names}
    return Table(name, columns, separator)


def _array(column: Any) -> Any:
    pa = require("pyarrow")
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def _checked(make: Callable[[], Any], name: str) -> Any:
    """A table that a library makes; its errors become a ValueError with the table's name."""
    try:
        return make()
    except (ImportError, MemoryError, PermissionError):
        raise
    except Exception as error:  # of Arrow, of many types
        raise ValueError(f"cannot read {name}: {in_a_line(error)}") from error


def _check_names(name: str, columns: Sequence[str]) -> None:
    twice = sorted(column for column, count in Counter(columns).items() if count > 1)
    if twice:
        raise ValueError(f"{name} has two columns {twice[0]!r}; expected one: rename the other")


def _opened(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", newline="", errors="replace")


def _lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file that are not blank, with the number of their last line."""
    with _opened(path) as file, suppress(csv.Error):  # of a very long value
        rows = csv.reader(file, delimiter=separator)
        for cells in rows:
            if cells:
                yield rows.line_num, cells


def _header(path: Path, separators: str) -> tuple[str, list[str], int]:
    """The separator, the names in the first line that is not blank, and the lines up to there."""
    with path.open("rb") as raw:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path} is UTF-16; expected UTF-8: save it as CSV in UTF-8")
    with _opened(path) as file:
        before, first = next(((i, line) for i, line in enumerate(file) if line.strip()), (0, ""))
        if not first:
            raise ValueError(f"{path} is empty; expected a line with the names of columns")
        separator = max(separators, key=first.count)
        rows = csv.reader(chain([first], file), delimiter=separator)
        names = _checked(lambda: [name.strip() for name in next(rows)], str(path))
    if any("\ufffd" in name for name in names):
        _check_utf8(path)
    return separator, names, before + rows.line_num


def _check_utf8(path: Path) -> None:
    """Raises ValueError, with the line, for a file that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                part = line[max(0, error.start - 20) : error.end + 20].strip()
                raise ValueError(
                    f"{path}, line {number}: {part!r} is not UTF-8; expected UTF-8: save it as "
                    "CSV in UTF-8"
                ) from error


def _csv(path: Path, separator: str, header: list[str], lines: int) -> Any:
    """All columns of a CSV file, as text; of those without a name one."""
    pa, reader = require("pyarrow"), require("pyarrow.csv")
    _check_names(str(path), list(filter(None, header)))
    names = [name or f"\0{i}" for i, name in enumerate(header)]
    if "" in header:
        names[header.index("")] = ""
    wrong: list[Any] = []

    def note(row: Any) -> str:
        wrong.append(row)
        return "skip"

    def read_csv() -> Any:
        return reader.read_csv(
            path,
            # One thread, else rows have no numbers.
            reader.ReadOptions(
                use_threads=False, column_names=names, skip_rows=lines, block_size=_BLOCK
            ),
            reader.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=note
            ),
            reader.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                include_columns=[name for name in names if not name.startswith("\0")],
                strings_can_be_null=False,
            ),
        )

    try:
        table = _checked(read_csv, str(path))
    except ValueError:
        _check_utf8(path)
        raise
    if wrong:
        strange = ((n, len(c)) for n, c in _lines(path, separator) if len(c) != len(header))
        line, cells = next(strange, (0, wrong[0].actual_columns))
        raise ValueError(
            f"{path}, line {line}: {cells} values; expected {len(header)}, as the first line has "
            "names: put values that contain the separator into double quotes"
        )
    return table


def whole(text: Any) -> Any:
    """Texts of whole floats, as pandas writes integers of which some are missing, as integers.

    Args:
        text: Arrow's strings; others than these, and "", leave all as they are.
    """
    compute = require("pyarrow.compute")
    fits = compute.or_(compute.match_substring_regex(text, _WHOLE), compute.equal(text, ""))
    if not compute.all(fits).as_py():
        return text
    return compute.replace_substring_regex(text, r"\.0+$", "")


def _is_numeric(kind: Any) -> bool:
    types = require("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _as_numbers(text: Any) -> Any:
    """Arrow's float64 of strings, also of true and false; None if one is not a number."""
    pa, compute = require("pyarrow"), require("pyarrow.compute")
    try:
        return compute.cast(text, pa.float64())
    except pa.ArrowInvalid:
        pass
    lower = compute.utf8_lower(text)
    words = compute.is_in(lower, pa.array(["true", "false"], pa.large_string()))
    if not compute.all(words).as_py():
        return None
    return compute.cast(compute.cast(compute.equal(lower, "true"), pa.int8()), pa.float64())


def _first(values: Any, fails: Callable[[Any], bool]) -> int:
    """The first row whose value fails, of an array that has one."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if fails(values.slice(low, middle - low)):
            high = middle
        else:
            low = middle
    return low
