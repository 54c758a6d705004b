"""What stands in place of the scores of positions that attention must not see."""

MASKED = -1e9  # finite, so that a row of padding does not give NaN
