"""The grid's variables that no family declares: exact laws, likelihoods, training, curves."""

from __future__ import annotations

from sgm.variables import AXES, GRID, KL_TERMINAL, LEARNED, REPLICATE, SCHEDULE, THEORY, Variable

__all__ = [
    "CURVES",
    "EXACT_LAW",
    "LEARNED_LAW",
    "LIKELIHOOD",
    "PARTICLES",
    "PARTICLE_LIMIT",
    "PRIORS",
    "REPLICATE",
    "RESERVED",
    "THEORY",
    "TRAINING",
]

EXACT_LAW = (
    Variable("kl_exact", GRID, "KL(target || exact law of the sampler's output)"),
    Variable("kl_reverse_exact", GRID, "KL(exact law of the sampler's output || target)"),
    Variable("w2_exact", GRID, "W2(target, exact law of the sampler's output)", "1"),
)
#: Of scores that are learnt from a seed's rows without a network.
LEARNED_LAW = (
    Variable(
        "kl_learned",
        REPLICATE,
        "KL(target || exact law of the output of a score learnt from the rows of a seed)",
        about={
            "role": "divergence",
            "figure": "kl_learned",
            "label": "KL(target ‖ learnt)",
            "closed": "1",
        },
    ),
    Variable(
        "kl_learned_limit",
        LEARNED,
        "KL(target || output of the backward SDE without steps, with a score learnt from rows)",
    ),
    Variable("kl_learned_fit", LEARNED, "KL(target || law that the learnt score believes in)"),
    Variable(
        "kl_learned_expected",
        ("target", "score"),
        "mean of kl_learned_fit over all samples of as many rows",
    ),
    Variable(
        "w2_learned",
        REPLICATE,
        "W2(target, exact law of the output of a score learnt from the rows of a seed)",
        "1",
        {
            "role": "divergence",
            "figure": "w2_learned",
            "label": "W2(target, learnt)",
            "closed": "1",
        },
    ),
    Variable(
        "w2_learned_limit",
        LEARNED,
        "W2(target, output of the backward SDE without steps, with a score learnt from rows)",
        "1",
    ),
    Variable("w2_learned_fit", LEARNED, "W2(target, law that the learnt score believes in)", "1"),
)
#: Of scores that move particles, measured in each run.
PARTICLES = (
    Variable(
        "ess",
        REPLICATE,
        "effective sample size of the particles at the end, a share of K; mean over filters",
        "1",
        {
            "role": "divergence",
            "figure": "ess",
            "label": "effective sample size / particles",
            "ranks": "0",
        },
    ),
    Variable("ess_least", REPLICATE, "least effective sample size on the way, mean", "1"),
    Variable("resamplings", REPLICATE, "resamplings of a filter before its end, mean", "1"),
    Variable(
        "log_evidence",
        REPLICATE,
        "log of the mean over filters of their estimates of p_theta(y), the chain's evidence",
        about={
            "role": "divergence",
            "figure": "log_evidence",
            "label": "log p(y), by particles",
            "exact": "log_evidence_exact",
            "standard_error": "log_evidence_standard_error",
            "ranks": "0",
        },
    ),
    Variable(
        "log_evidence_standard_error",
        REPLICATE,
        "standard error of log_evidence over the filters of a run; NaN of a single one",
    ),
)
#: Of a Gaussian prior, for any number of particles: what they tend to.
PARTICLE_LIMIT = (
    Variable("log_evidence_exact", GRID, "log p_theta(y) of the chain of the prior's score, exact"),
    Variable("kl_limit", GRID, "KL(target || posterior of the prior's chain), as K grows"),
    Variable("w2_limit", GRID, "W2(target, posterior of the prior's chain), as K grows", "1"),
)
LIKELIHOOD = (
    KL_TERMINAL,
    Variable("data_log_density", ("target",), "E log p_0(X_0), exact"),
    Variable("terminal_log_density", SCHEDULE, "E log p_T(X_T), exact"),
    Variable("elbo_r", SCHEDULE, "R of E log p = E log p_T + R - K, from the cutoff on, exact"),
    Variable("elbo_k", SCHEDULE, "K of E log p = E log p_T + R - K, from the cutoff on, exact"),
    Variable(
        "elbo_difference",
        SCHEDULE,
        "R - K of E log p = E log p_T + R - K, from the cutoff on, exact",
    ),
    Variable(
        "reverse_sde_kl", SCHEDULE, "KL(target || law of the backward SDE with the exact score)"
    ),
    Variable("score_gap", LEARNED, "G, half the integral of the score's squared error"),
    Variable("score_gap_standard_error", LEARNED, "Monte-Carlo standard error of score_gap"),
    Variable("elbo", LEARNED, "evidence bound E log p - G - KL(p_T || prior)"),
    Variable("denoising_elbo", LEARNED, "evidence bound from denoising losses, by Monte Carlo"),
    Variable(
        "denoising_elbo_standard_error", LEARNED, "Monte-Carlo standard error of denoising_elbo"
    ),
    Variable("flow_log_likelihood", LEARNED, "mean log-likelihood under the probability flow"),
    Variable(
        "flow_log_likelihood_standard_error",
        LEARNED,
        "standard error of flow_log_likelihood over its rows",
    ),
    Variable("bits_per_dimension", LEARNED, "bits per dimension of the data's own levels", "bit"),
    Variable("flow_evaluations", LEARNED, "evaluations of the score by the solver (NFE)", "1"),
    Variable("flow_seconds", LEARNED, "wall time of the flow, for all rows", "s"),
    Variable(
        "optimal_horizon",
        ("target", "schedule", "score"),
        "horizon with the largest evidence bound, exact",
        "1",
    ),
    Variable(
        "optimal_horizon_interior",
        ("target", "schedule", "score"),
        "1 where optimal_horizon is not an end of the horizons considered",
        "1",
    ),
)
_FITTED = (*SCHEDULE, "seed")  # to the rows of a seed
#: Of other laws at which the backward process may start.
PRIORS: dict[str, tuple[Variable, ...]] = {
    name: (
        Variable(f"kl_terminal_{name}", _FITTED, f"KL(p_T || {what})"),
        Variable(f"prior_gain_{name}", _FITTED, f"what a start at the {what} adds to the ELBO"),
        Variable(
            f"prior_gain_{name}_standard_error", _FITTED, "Monte-Carlo standard error of that"
        ),
        Variable(
            f"reverse_sde_kl_{name}",
            _FITTED,
            f"KL(target || backward SDE with the exact score, started at the {what})",
        ),
    )
    for name, what in {
        "moments": "Gaussian of the moments of X_T",
        "mixture": "mixture fitted to noised training rows",
    }.items()
}
PRIORS["moments"] += (
    Variable("kl_exact_moments", GRID, "KL(target || exact law of the output, started at p_T)"),
    Variable("w2_exact_moments", GRID, "W2(target, exact law of the output, started at p_T)", "1"),
    Variable(
        "optimal_horizon_moments",
        ("target", "schedule", "score"),
        "the horizon of the largest evidence bound of a start at X_T's moments, exact",
        "1",
    ),
    Variable(
        "optimal_horizon_moments_interior",
        ("target", "schedule", "score"),
        "1 where it is not an end of the horizons considered",
        "1",
    ),
)
TRAINING = (
    Variable(
        "train_loss",
        LEARNED,
        "training loss, mean over the last epoch",
        "1",
    ),
    Variable(
        "train_seconds",
        LEARNED,
        "CPU time of training one network",
        "s",
    ),
)
CURVES = tuple(
    Variable(f"schedule_{name}", ("schedule", "horizon", "time_fraction"), long_name, "1")
    for name, long_name in {
        "beta": "beta(t)",
        "mean_scale": "m(t), mean scale of X_t given X_0",
        "std": "sigma_t, standard deviation of X_t given X_0",
    }.items()
)

#: Names that every grid gives a meaning of its own.
RESERVED = {
    *AXES, "status", "target_family", "dimension", "law_known", "family", "full_horizon",
    "score_family", "recipe", *(variable.name for variable in (*EXACT_LAW, *TRAINING, *CURVES)),
    *(variable.name for variable in (*PARTICLES, *PARTICLE_LIMIT)),
    *(variable.name for variable in (*LEARNED_LAW, *PRIORS["moments"], *PRIORS["mixture"])),
}  # fmt: skip
