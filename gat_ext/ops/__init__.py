"""How torch sees the native operators: fake kernels, gradients, autocast and vmap, a module each.

Uses the native module only. ``registry`` has the operators themselves, ``state`` what torch is
doing; ``scatter``, ``scores`` and ``composed`` are the same mathematics in torch's operators.
Nothing here validates or documents for users: ``functional`` does.
"""
