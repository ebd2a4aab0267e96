"""How torch sees the native operators: fake kernels, gradients, autocast and vmap, a module each.

Uses the native module only. ``registry`` has the operators and ``state`` the modes of torch;
``scatter``, ``scores`` and ``composed`` implement the same mathematics in torch's operators.
Validation and documentation for users are in ``functional``.
"""
