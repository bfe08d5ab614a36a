"""Divergences and bounds as named variables of the grid.

A measure returns a mapping from each variable that it declares, and no other,
to its value, NaN where it is not known. It names what it needs among its arguments. A
divergence, any of

    sample      the generated rows
    generated   as many of them as an independent true sample can have
    reference   an independent true sample of that size: fresh draws, or the held-out rows
    target, train, heldout
    control     the exact-score chain on the same noise, for trained scores of a known law

A bound, any of `process`, `law`, `times`, `sampler`, and of the score's error at the
departure times `score_mse`, `score_mse_standard_error` and `score_cross` under the forward
process, from `score_draws` draws a time (0: exact), `score_mse_generated` along the generated
chain (NaN where it is not known).
"""
