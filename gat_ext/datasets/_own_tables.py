"""Tables of a user: CSV, Parquet, pandas, or columns by name; errors name the line and the column.

All become Arrow's columns, so that ids are looked up and numbers are parsed in one way. Arrow's
reader of CSV does not say in which line a value was: the csv module finds it, for an error.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._files import in_a_line
from gat_ext.datasets._optional import require

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}
SUFFIXES = (*_SEPARATORS, ".parquet")
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


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
            with _opened(Path(self.name)) as file:
                lines = csv.reader(file, delimiter=self.separator)
                filled = (lines.line_num for cells in lines if cells)
                line = next((line for i, line in enumerate(filled) if i == row + 1), row + 2)
            where = f"line {line}"
        return f"{self.name}, {where}" + ("" if column is None else f", column {column}")

    def require(self, column: str, what: str, argument: str) -> None:
        """Raises ValueError unless there is such a column; the error names the argument."""
        if column not in self.columns:
            raise ValueError(
                f"{self.name} has no column {column!r} for {what}; it has "
                f"{', '.join(map(repr, self.columns))}: rename one, or name it by {argument}"
            )

    def text(self, column: str) -> Any:
        """A column as Arrow's strings without blanks around them; "" where there is no value."""
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        values = self.columns[column]
        if pa.types.is_floating(values.type):  # as pandas stores integers with missing values
            small = compute.less(compute.abs(values), 2.0**53)
            whole = compute.and_(small, compute.equal(values, compute.floor(values)))
            if compute.all(compute.fill_null(whole, True)).as_py():
                values = compute.cast(values, pa.int64())
        if pa.types.is_nested(values.type) or pa.types.is_null(values.type):
            kind = values.type
            raise ValueError(f"{self.name}, column {column} is of type {kind}; expected text")
        text = compute.fill_null(compute.cast(values, pa.large_string()), "")
        return compute.utf8_trim_whitespace(text)

    def kind(self, column: str) -> str:
        """``"numbers"``, ``"text"``, or ``"mixed"`` if some cells are numbers and others not."""
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        kind = self.columns[column].type
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return "numbers"
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return "text"
        if _as_numbers(self.text(column)) is not None:
            return "numbers"
        some = compute.any(compute.match_substring_regex(self.text(column), _NUMBER)).as_py()
        return "mixed" if some else "text"

    def numbers(self, columns: Sequence[str], option: str) -> Array:
        """Columns as float64 [rows, columns].

        Args:
            columns: Their names.
            option: That chooses columns, for errors.

        Raises:
            ValueError: A cell is not a finite number.
        """
        found = [self._numbers(column, option) for column in columns]
        return np.stack(found, axis=1) if found else np.empty((len(self), 0))

    def _numbers(self, column: str, option: str) -> Array:
        pa, compute = require("pyarrow"), require("pyarrow.compute")
        values = self.columns[column]
        if pa.types.is_boolean(values.type) or pa.types.is_integer(values.type):
            numbers = compute.cast(values, pa.float64(), safe=False)
        elif pa.types.is_floating(values.type):
            numbers = compute.cast(values, pa.float64())
        else:
            text = self.text(column)
            numbers = _as_numbers(text)
            if numbers is None:
                row = _first(text, lambda part: _as_numbers(part) is None)
                self._refuse(row, column, text[row].as_py(), option)
        result: Array = np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)
        bad = np.flatnonzero(~(np.abs(result) <= np.finfo(np.float32).max))
        if len(bad):
            given = "" if numbers[int(bad[0])].as_py() is None else str(result[bad[0]])
            self._refuse(int(bad[0]), column, given, option)
        return result

    def _refuse(self, row: int, column: str, given: str, option: str) -> None:
        what = f"{given[:60]!r} is not a finite number of float32" if given else "there is no value"
        raise ValueError(
            f"{self.place(row, column)}: {what}; expected a number in every row: fill it in, or "
            f"leave the column out by naming the others with {option}"
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
            separator, header = _header(path, _SEPARATORS[suffix])
            table = _csv(path, separator, header)
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
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"{name} has two columns {twice[0]!r}; expected one: rename the other")


def _opened(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", newline="", errors="replace")


def _header(path: Path, separators: str) -> tuple[str, list[str]]:
    """The separator, and the names in the first line that is not blank."""
    with _opened(path) as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise ValueError(f"{path} is empty; expected a line with the names of columns")
    separator = max(separators, key=first.count)
    return separator, [name.strip() for name in next(csv.reader([first], delimiter=separator))]


def _before(path: Path) -> int:
    """Lines of a CSV file up to its header, and that."""
    with _opened(path) as file:
        return next(number for number, line in enumerate(file, 1) if line.strip())


def _csv(path: Path, separator: str, header: list[str]) -> Any:
    """All columns of a CSV file, as text."""
    pa, reader = require("pyarrow"), require("pyarrow.csv")
    _check_names(str(path), header)
    wrong: list[Any] = []

    def note(row: Any) -> str:
        wrong.append(row)
        return "skip"

    table = _checked(
        lambda: reader.read_csv(
            path,
            # One thread, else rows have no numbers.
            reader.ReadOptions(use_threads=False, column_names=header, skip_rows=_before(path)),
            reader.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=note
            ),
            reader.ConvertOptions(
                column_types=dict.fromkeys(header, pa.large_string()), strings_can_be_null=False
            ),
        ),
        str(path),
    )
    if wrong:
        lines = _lines_of_length(path, separator, len(header))
        line, cells = next(lines, (0, wrong[0].actual_columns))
        raise ValueError(
            f"{path}, line {line}: {cells} values; expected {len(header)}, as the first line has "
            "names: put values that contain the separator into double quotes"
        )
    return table


def _lines_of_length(path: Path, separator: str, columns: int) -> Iterator[tuple[int, int]]:
    """Lines with another number of values, and that number."""
    with _opened(path) as file:
        lines = csv.reader(file, delimiter=separator)
        for cells in lines:
            if cells and len(cells) != columns:
                yield lines.line_num, len(cells)


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
