"""Errors that name the process that ended, in place of those of the transport."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from gat_ext.distributed import liveness

_PREFIX = "gat_ext/failure"
_PATIENCE = 10.0  # seconds, at most, in which the other processes must notice the failure, too


class RankError(RuntimeError):
    """A process of the group ended, or did not answer in time.

    Attributes:
        ranks: the processes that did not answer; empty if all of them did.
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = ()) -> None:
        """Stores both."""
        super().__init__(message)
        self.ranks = ranks


@contextmanager
def naming_the_dead(group: Any = None) -> Iterator[None]:
    """Turns an error of a collective operation into a RankError with the ranks that ended.

    Each process that sees the error writes its rank into the store of the default group, and waits
    a few seconds for those of the others. It names those that are known to have ended, which the
    processes of one machine know of each other; if there are none, those that are missing, which
    have ended, hang, or wait for others.

    Args:
        group: the processes of the operation; None: all of them. Ranks are those of the default
            group in any case, which number the processes.
    """
    _announce()
    try:
        yield
    except RankError:
        raise
    except RuntimeError as error:
        if not dist.is_initialized():
            raise
        raise _explained(error, group) from error


def _announce() -> None:
    """Writes the identity of this process into the store, once."""
    if dist.is_available() and dist.is_initialized():
        store = _store()
        if _announced != [store]:
            store.set(f"{_PREFIX}/process/{dist.get_rank()}", liveness.identity())
            _announced[:] = [store]


_announced: list[Any] = []  # the store


def report_failure(error: BaseException) -> None:
    """Tells the other processes why this one ends; for the top level of a program.

    Their RankError then has the reason. Does nothing if there is no process group, or if the error
    is a RankError, which is the failure of another process.

    Args:
        error: that ends this process.

    Example:
        >>> from gat_ext.distributed import report_failure
        >>> def program(work):
        ...     try:
        ...         work()
        ...     except BaseException as error:
        ...         report_failure(error)
        ...         raise
        >>> program(lambda: None)
    """
    if dist.is_initialized() and not isinstance(error, RankError):
        try:
            kind = type(error).__name__
            _store().set(f"{_PREFIX}/reason/{dist.get_rank()}", f"{kind}: {error}"[:500])
        except RuntimeError:
            pass  # the store ended with the process that hosts it


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _explained(error: RuntimeError, group: Any = None) -> RankError:
    rank, members = dist.get_rank(), dist.get_process_group_ranks(group)
    try:
        missing, reasons = _missing(rank, members)
    except RuntimeError:
        return RankError(
            f"rank {rank}: a collective operation failed, and the store of the process group does "
            "not answer: the process that hosts it has ended, which is rank 0 unless torchrun "
            f"hosts it. The transport says: {error}",
            (0,),
        )
    why = "".join(f" Rank {r} said: {reason}." for r, reason in reasons.items())
    if not missing:
        every = ", ".join(map(str, members))
        return RankError(
            f"rank {rank}: a collective operation failed, though ranks {every} answer: one of them "
            f"may have made other calls than the others, or was slower than the timeout.{why} "
            f"The transport says: {error}"
        )
    names = ", ".join(map(str, missing))
    noun = "rank" if len(missing) == 1 else "ranks"
    return RankError(
        f"rank {rank}: {noun} {names} ended or does not answer.{why} Start all "
        f"processes again from the last checkpoint. The transport says: {error}",
        tuple(missing),
    )


def _missing(rank: int, members: list[int]) -> tuple[list[int], dict[int, str]]:
    """(ranks that did not notice the failure, what ranks said before they ended)."""
    store = _store()
    store.set(f"{_PREFIX}/alive/{rank}", "1")
    deadline = time.monotonic() + min(_PATIENCE, store.timeout.total_seconds())
    waiting = [r for r in members if r != rank]
    while waiting and time.monotonic() < deadline:
        waiting = [r for r in waiting if not _has_spoken(store, r)]
        # A process that ended after it noticed the failure is not its cause.
        ended = [r for r in waiting if _has_ended(store, r) and not _has_spoken(store, r)]
        if ended:
            waiting = ended  # the others may wait for this process
            break
        time.sleep(0.05)
    reasons = {}
    for r in members:
        key = f"{_PREFIX}/reason/{r}"
        if r != rank and store.check([key]):
            store.wait([key], timedelta(seconds=1))
            reasons[r] = store.get(key).decode(errors="replace")
            waiting = sorted({*waiting, r})
    return waiting, reasons


def _has_ended(store: Any, rank: int) -> bool:
    """True if a process is known to have ended."""
    key = f"{_PREFIX}/process/{rank}"
    return bool(store.check([key])) and liveness.has_ended(store.get(key).decode())


def _has_spoken(store: Any, rank: int) -> bool:
    """True if a process noticed the failure, or has said why it ends."""
    return any(store.check([f"{_PREFIX}/{what}/{rank}"]) for what in ("alive", "reason"))


@contextmanager
def raised_by_all(group: Any = None) -> Iterator[None]:
    """Raises in all processes if the block raises in one of them.

    Each process runs the block by itself, without collective operations that wait for others.

    Args:
        group: the processes; None: all of them.

    Raises:
        Exception: the error of this process; else, of the first process with one, its text, as an
            OSError, a ValueError or a TypeError if it is one, or as a RuntimeError.
    """
    mine: Exception | None = None
    try:
        yield
    except RankError:
        raise
    except Exception as error:
        mine = error
    if dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1:
        every: list[Any] = [None] * dist.get_world_size(group)
        text = None if mine is None else (_kind(mine), str(mine))
        try:
            with naming_the_dead(group):
                dist.all_gather_object(every, text, group=group)
        except RankError:
            if mine is None:
                raise
        failed = [(rank, what) for rank, what in enumerate(every) if what is not None]
        if failed and mine is None:
            rank, (kind, message) = failed[0]
            raise _KINDS[kind](f"rank {rank}: {message}")
    if mine is not None:
        raise mine


_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (FileNotFoundError, OSError, TypeError, ValueError, RuntimeError)
}


def _kind(error: Exception) -> str:
    return next((n for n, kind in _KINDS.items() if isinstance(error, kind)), "RuntimeError")
