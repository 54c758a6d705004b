"""Array operations that XLA's CPU backend computes slowly as written; delete each when XLA no longer needs it.

`rounding` is plain integer arithmetic.
"""
