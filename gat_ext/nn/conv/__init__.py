"""The attention layers, one file for each.

Each uses ``nn.base`` and one operator of ``functional``; all are exported by :mod:`gat_ext.nn`.
"""
