"""The order of the seeds of an epoch, and their batches on one or several processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from gat_ext.sampling import checks


class Request(NamedTuple):
    """A batch to sample, in an epoch.

    Attributes:
        positions: int64 array [S], of the seeds among the input nodes. It is an array because a
            tensor would be sent to a worker through a file descriptor.
        epoch: number of the epoch.
    """

    positions: Any
    epoch: int


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation, int64 [count], that depends on nothing but the arguments.

    Example:
        >>> epoch_order(4, seed=0, epoch=1).sort().values.tolist()
        [0, 1, 2, 3]
    """
    return torch.randperm(count, generator=generator_of(seed, epoch))


def generator_of(*numbers: int) -> torch.Generator:
    """A generator whose random numbers are determined by these numbers.

    Example:
        >>> draws = [torch.randint(10**9, (), generator=generator_of(*n)) for n in ((1, 0), (0, 1))]
        >>> bool(draws[0] == draws[1])
        False
    """
    return torch.Generator().manual_seed(number_of(*numbers))


def number_of(*parts: Any) -> int:
    """A number of 56 bits that is determined by these numbers, names or tuples of them.

    Example:
        >>> number_of(0, "a") == number_of(0, "a"), number_of(0, "a") == number_of(0, "b")
        (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


def place_of_process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """(rank, world_size), by default those of torch.distributed, if it is initialised."""
    if (rank is None) != (world_size is None):
        raise ValueError(
            f"rank is {rank} and world_size is {world_size}; expected both, or neither for those "
            "of torch.distributed"
        )
    if rank is not None and world_size is not None:
        world_size = checks.integer(world_size, "world_size", 1)
        rank = checks.integer(rank, "rank")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; expected a number from 0 to {world_size - 1}")
        return rank, world_size
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


class EpochBatches(Sampler[Request]):
    """The batches of one process, epoch after epoch.

    The input nodes are ordered and cut into batches as for one process; process r of W gets every
    W-th batch from the r-th on. So the batches of all processes are those of one.

    Args:
        count: number of input nodes.
        batch_size: number of seeds of a batch.
        shuffle: a new order for each epoch; else the order of the input nodes.
        drop_last: leave out a last batch that is smaller; with several processes, also the last
            batches that not every process would get one of.
        seed: determines the orders.
        place: (rank, world_size).
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        place: tuple[int, int],
    ) -> None:
        """Keeps the arguments; see the class."""
        self.count, self.batch_size, self.shuffle = count, batch_size, shuffle
        self.drop_last, self.seed, self.place = drop_last, seed, place
        self.epoch = 0  # the next

    def __len__(self) -> int:
        """Number of batches of this process in an epoch."""
        rank, world_size = self.place
        if self.drop_last:
            return self.count // self.batch_size // world_size
        batches = -(-self.count // self.batch_size)
        return max(0, -(-(batches - rank) // world_size))

    def __iter__(self) -> Iterator[Request]:
        """The requests of the next epoch, which begins at the first of them.

        A DataLoader with workers creates two iterators and reads one.
        """
        epoch, self.epoch = self.epoch, self.epoch + 1
        if self.shuffle:
            order = epoch_order(self.count, self.seed, epoch)
        else:
            order = torch.arange(self.count)
        rank, world_size = self.place
        for step in range(len(self)):
            first = (step * world_size + rank) * self.batch_size
            yield Request(order[first : first + self.batch_size].numpy(), epoch)
