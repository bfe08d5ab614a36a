"""Results on disk: cell files (`cells`), and the labelled dataset (`grid`) over `axes`."""

__all__ = ["DONE", "FAILED", "NOT_APPLICABLE", "NOT_RUN"]

#: Values of the grid's variable `status`.
NOT_RUN, DONE, FAILED, NOT_APPLICABLE = range(4)
