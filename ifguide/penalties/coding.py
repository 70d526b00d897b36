"""Tokens with their penalty codes on top: ``token + code * 2**32``, int64.

One array through packing, workers, collation and pinning cannot lose its alignment, and costs a loader nothing.
Both engines use it.
"""

CODE_SHIFT = 32
TOKEN_BITS = (1 << CODE_SHIFT) - 1
