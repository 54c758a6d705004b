"""Array operations that work around slow code of XLA's CPU backend; delete each when XLA no longer needs it.

`rounding` is plain integer arithmetic.
"""
