"""A user's own tables of nodes and edges, as a NodeDataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gat_ext.datasets._arrays import Array
from gat_ext.datasets._dataset import NodeDataset
from gat_ext.datasets._names import Names
from gat_ext.datasets._optional import require
from gat_ext.datasets._own_parts import Labels, Parts, Reading, assemble
from gat_ext.datasets._own_tables import Table, read, whole


def from_tables(
    nodes: Any,
    edges: Any,
    *,
    columns: Mapping[str, str] | None = None,
    features: Sequence[str] | None = None,
    edge_features: bool | Sequence[str] = False,
    directed: bool = False,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    standardize: bool = True,
    name: str = "tables",
) -> NodeDataset:
    """The data set of a table of nodes and a table of edges.

    A table is the path of a .csv, .tsv or .parquet file, a pandas DataFrame, an Arrow table, or a
    dictionary of columns. Nodes have the columns ``id`` and ``label``, a class of any name, empty
    where it is unknown; optionally ``split``, one of train, val and test, or empty; and the
    features, numbers. Edges have the columns ``source`` and ``target``, of ids. Ids are compared
    as texts.

    ``NodeDataset.names`` has the ids, the classes and the names of the features. Classes are
    numbered in the order of their names, or of their values if all are integers.

    Args:
        nodes: The table of nodes.
        edges: The table of edges.
        columns: Other names of columns, such as ``{"id": "paper", "label": "topic"}``.
        features: Names of the feature columns. None: all other columns of numbers; columns of text
            are not read, and ``NodeDataset.names.unread`` lists them.
        edge_features: Names of edge features, which become ``edge_attr``; True: all other columns
            of numbers; False: none.
        directed: False: every edge gets its reverse; repeated edges and self-loops are removed,
            unless their features differ. True: the edges stay as they are.
        fractions: Of the labelled nodes for training, validation and test, in each class alike, if
            there is no column ``split``.
        seed: Seed of that split.
        standardize: Scale the columns of features to mean 0 and standard deviation 1, over all
            nodes or edges, except those of zeros and ones.
        name: Name of the data set.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: A table is something else.
        ValueError: A column is missing, an id is unknown or occurs twice, a feature is not a
            number, no column has the features of edges that were requested, a split has an unknown
            word, there are fewer than two classes, or labels are numbers with fractions. The
            message names the file, the line and the column.
        ImportError: pyarrow is missing.

    Example:
        >>> people = {"id": ["ann", "bob", "cyd", "dan"], "age": [31, 25, 47, 52],
        ...           "label": ["a", "b", "a", ""], "split": ["train", "val", "test", ""]}
        >>> data = from_tables(people, {"source": ["ann", "cyd"], "target": ["bob", "dan"]})
        >>> data.names.classes, data.y.tolist(), data.edge_index.tolist()
        (('a', 'b'), [0, 1, 0, -1], [[1, 0, 3, 2], [0, 1, 2, 3]])
    """
    how = Reading(
        dict(columns or {}), features, edge_features, directed, fractions, seed, standardize
    )
    return assemble(parts_of_tables(read(nodes, "nodes"), read(edges, "edges"), how), how, name)


def parts_of_tables(
    nodes: Table,
    edges: Table,
    how: Reading,
    known: Names | None = None,
    labels: bool = True,
    directed: bool = False,
) -> Parts:
    """The parts of two tables; the arguments are those of :func:`from_path`."""
    for table, what, meaning in (
        (nodes, "id", "the ids of nodes"),
        (nodes, "label", "the classes"),
        (edges, "source", "the ids of the edges' sources"),
        (edges, "target", "the ids of the edges' targets"),
    ):
        if what != "label" or (labels and known is None):
            table.require(how.column(what), meaning, how.argument(what) if known is None else "")
    ids = nodes.text(how.column("id"))
    _check_ids(nodes, ids, how)
    own = {how.column(what) for what in ("id", "label", "split")}
    by_edges = "--edge-attributes" if how.command else "edge_features"
    if known is None:
        option, chosen, of_edges = how.features_argument, how.features, how.edge_features
        otherwise = f"leave the column out by naming the others with {option}"
        edges_otherwise = (
            f"leave the column out of the file, or {by_edges} out"
            if how.command
            else f"leave the column out by naming the others with {by_edges}"
        )
    else:  # columns are those of the model
        option, chosen, of_edges = "", known.features, known.edges
        otherwise = edges_otherwise = ""
    names, unread = _feature_columns(nodes, chosen, own, option)
    if not names:
        others = f" (not read: {', '.join(unread)})" if unread else ""
        raise ValueError(
            f"{nodes.name} has no column of numbers for features, apart from "
            f"{', '.join(sorted(own))}{others}; expected at least one: add one, for example of "
            "degrees"
        )
    own = {how.column(what) for what in ("source", "target")}
    option = by_edges if known is None and not how.command else ""
    edge_names, edges_unread = _feature_columns(edges, of_edges, own, option)
    if of_edges is True and not edge_names:
        raise ValueError(
            f"{edges.name} has no column of numbers for features of edges, apart from "
            f"{', '.join(sorted(own))}; expected at least one: leave {by_edges} out"
        )
    ends = [_numbers_of(edges, how.column(what), ids, nodes.name) for what in ("source", "target")]

    def column(what: str) -> Any:
        there = labels and how.column(what) in nodes.columns
        return whole(nodes.text(how.column(what))) if there else None

    return Parts(
        ids.to_pylist(),
        nodes.numbers(names, otherwise),
        names,
        np.stack(ends),
        edges.numbers(edge_names, edges_otherwise),
        edge_names,
        Labels(
            column("label"), column("split"), lambda row, what: nodes.place(row, how.column(what))
        ),
        (*unread, *edges_unread),
        directed,
    )


def _check_ids(nodes: Table, ids: Any, how: Reading) -> None:
    compute = require("pyarrow.compute")
    column = how.column("id")
    empty = np.flatnonzero(compute.equal(ids, "").to_numpy(zero_copy_only=False))
    if len(empty):
        raise ValueError(
            f"{nodes.place(int(empty[0]), column)}: there is no id; expected one for every node"
        )
    first = compute.index_in(ids, ids).to_numpy(zero_copy_only=False)
    again = np.flatnonzero(first != np.arange(len(ids)))
    if len(again):
        row = int(again[0])
        before = nodes.place(int(first[row])).removeprefix(f"{nodes.name}, ")
        raise ValueError(
            f"{nodes.place(row, column)}: the id {ids[row].as_py()!r} is that of {before}, too; "
            "expected one row for each node: remove one"
        )


def _numbers_of(edges: Table, column: str, ids: Any, nodes: str) -> Array:
    """Numbers of the nodes whose ids a column of edges has."""
    compute = require("pyarrow.compute")
    text = edges.text(column)
    found = compute.index_in(text, ids)
    if found.null_count and not (again := compute.index_in(whole(text), ids)).null_count:
        found = again
    lacking = np.flatnonzero(compute.is_null(found).to_numpy(zero_copy_only=False))
    if len(lacking):
        row = int(lacking[0])
        given = text[row].as_py()
        what = f"no node has the id {given!r}" if given else "there is no id"
        more = f" ({len(lacking)} such edges)" if len(lacking) > 1 else ""
        alike = next((each for each in ids.to_pylist() if _bare(each) == _bare(given)), None)
        mend = "add the node there, or remove the edge"
        if given and alike is not None:
            mend = f"write {alike!r} alike in both"
        raise ValueError(
            f"{edges.place(row, column)}: {what}{more}; expected an id of {nodes}: {mend}"
        )
    result: Array = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return result


def _bare(name: str) -> str:
    """An id without what spreadsheets change: leading zeros, and capitals."""
    return name.lstrip("0").casefold()


def _feature_columns(
    table: Table, chosen: bool | Sequence[str] | None, own: set[str], option: str
) -> tuple[list[str], list[str]]:
    """Names of the columns of features, and columns that are not read, with reasons."""
    others = [column for column in table.columns if column not in own]
    if chosen is not None and not isinstance(chosen, bool):
        for column, count in Counter(chosen).items():
            if count > 1:
                raise ValueError(f"{option} has {column!r} {count} times; expected each name once")
            if column not in table.columns:
                table.require(column, "a feature", option)
            if column in own:
                raise ValueError(f"{option} has {column!r}, which is no feature; leave it out")
        return list(chosen), []
    if chosen is False:
        return [], [f"{table.name}: {column} (of edges)" for column in others]
    names, unread = [], []
    for column in others:
        kind = table.kind(column) if column else "without a name"
        if kind in ("numbers", "mixed"):  # of which numbers() names the first other cell
            names.append(column)
        else:
            unread.append(f"{table.name}: {column or 'a column'} ({kind})")
    return names, unread
