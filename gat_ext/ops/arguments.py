"""The arguments of edge_attention and its gradient by name.

Read from the schemas, which csrc/torch/schema.h defines. There is a namedtuple for the arguments of
each operator, and for each group of arguments that several operators share. All defaults are None.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from gat_ext import _C
from gat_ext.ops.registry import Grads, ops


def _record(name: str, fields: Iterable[str]) -> Any:
    fields = tuple(fields)
    return namedtuple(name, fields, defaults=(None,) * len(fields))  # type: ignore[misc]


def _arguments(operator: str) -> Any:
    name = operator.title().replace("_", "")
    return _record(name, [a.name for a in getattr(ops, operator).default._schema.arguments])


EdgeAttention = _arguments("edge_attention")
EdgeAttentionBackward = _arguments("edge_attention_backward")

Results = _record("Results", [r.name for r in ops.edge_attention.default._schema.returns])
"""out, lse, softmax, out_acc, selected, weights, some of which may be absent (:func:`is_absent`)"""

DIMS = _C.input_dims()
"""Of each differentiable input, a letter for each dimension; see csrc/torch/schema.h"""

Inputs = _record("Inputs", DIMS)
"""The differentiable inputs"""

_FIELDS = EdgeAttention._fields
Constants = _record("Constants", _FIELDS[_FIELDS.index("score") : _FIELDS.index("top_k")])
"""The numbers and flags of the operators and their gradients: score … dropout_p"""

PER_EDGE = tuple(name for name, dims in DIMS.items() if dims.startswith("E"))
"""Inputs with a row for each edge"""

HEADS = {
    **dict.fromkeys((*Results._fields, "grad_out", "grad_lse", "grad_weights"), 1),
    **{name: dims.index("H") for name, dims in DIMS.items() if "H" in dims},
}
"""The dimension of the heads in the tensors that have one"""

SHARED = tuple(name for name, dims in DIMS.items() if "H" not in dims)
"""Inputs that the heads share"""


def select(group: Any, arguments: Any) -> Any:
    """The arguments that ``group``, a record of arguments or of another operator, also has."""
    return group(**{n: getattr(arguments, n) for n in group._fields if hasattr(arguments, n)})


def gradients(arguments: Any, found: Mapping[str, Tensor | None]) -> Grads:
    """A gradient for each argument, from those found by name; None for the others."""
    return tuple(found.get(name) for name in arguments._fields)


def is_absent(result: Tensor) -> bool:
    """True for a tensor of shape [0]: a result not requested, or a gradient not needed."""
    return result.dim() < 2


def absent(like: Tensor) -> Tensor:
    """An absent result."""
    return like.new_empty(0)


# ---- from the forward of an autograd function to its backward

_SAVED = object()  # placeholder of a tensor that the context saves


def save(ctx: Any, arguments: Any) -> None:
    """Saves arguments in the context of an autograd function."""
    ctx.save_for_backward(*(a for a in arguments if isinstance(a, Tensor)))
    ctx.arguments = arguments._make(_SAVED if isinstance(a, Tensor) else a for a in arguments)


def saved(ctx: Any) -> Any:
    """The arguments that :func:`save` saved."""
    tensors = iter(ctx.saved_tensors)
    return ctx.arguments._make(next(tensors) if a is _SAVED else a for a in ctx.arguments)
