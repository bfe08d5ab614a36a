"""The kinetic process: position and velocity, critically damped.

    dX = β a² V dt + ε √β dB,     dV = −β (X + 2a V) dt + σ √β dB′,     V₀ ~ N(0, v₀ I),

that is dU = β A U dt + √β diag(ε, σ) dB of each pair U = (X, V), A = ((0, a²), (−1, −2a)). With
N = A + a I, N² = 0: after the clock h the pair is multiplied by F and has gained Q,

    F(h) = e^{−ah} (I + h N),     Q(h) = I₀ D + I₁ (N D + D Nᵀ) + I₂ N D Nᵀ,

D = diag(ε², σ²), I_k = ∫₀ʰ sᵏ e^{−2as} ds; Q(∞) = S is stationary. Given X₀ alone,
U_t ~ N(m X₀, C): m = F (1, 0)ᵀ, g = F (0, 1)ᵀ, C = Q + v₀ g gᵀ, all at h = B(t).

**One score of d coordinates.** Given U_t the data depend on it through one number a pair,
y = cᵀU with c ∝ C⁻¹m, a sufficient statistic; n·U, n ⊥ m, is noise without a trace of X₀. So

    ∇ log p_t(u) = −n (n·u)/(nᵀC n) + c ∇ log q_t(y),

q_t the law of y. Scaled as y = m̃ X₀ + √ṽ Z with m̃² + ṽ/S_xx = 1, it has the noise level
√ṽ/m̃ of a VP process whose σ² is S_xx, on a clock of its own. `mean_scale` and
`kernel_variance` are m̃ and ṽ: what is a score of this process everywhere in the package, exact
or learned, is that of q_t, E[X₀ | X_t, V_t] = E[X₀ | y], and `sgm.samplers.kinetic` puts it into
both equations. Hybrid score matching of a network of (x, v) is denoising score matching of
one of y, row by row; see `KineticProcess.hybrid_weight`.

The time change β → cβ is the same as a → ca, with σ/√c, ε√c and v₀/c² (and V/c): it changes
nothing for x.

Sources
-------
Strasman, Surendran, Boyer, Le Corff, Lemaire, Ocello (arXiv 2511.02419), for the process with
ε and the kernel; Dockhorn, Vahdat, Kreis (arXiv 2112.07068), whose mass is 1/a² and friction
2/a, with σ² = 4/a and ε = 0: S = diag(1, 1/a²). The statistic y and the digits kept are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance, require_positive, require_within, shown
from sgm.gaussian import Gaussian, require_single
from sgm.processes import Process
from sgm.registry import NonNegative, Positive, register
from sgm.schedules import NoiseSchedule

__all__ = ["KineticProcess"]

Array = npt.NDArray[np.float64]


@register("process", name="kinetic")
@dataclass(frozen=True)
class KineticProcess(Process):
    """Critically damped Langevin dynamics of (x, v), with β as its clock.

    `mean_scale`, `kernel_variance`, `noise_variance`, `perturb`, `marginal` and `prior` are of the
    statistic y, which carries all that a pair says of the data.

    Parameters
    ----------
    schedule : NoiseSchedule
        β on [0, T].
    damping : float
        a > 0: everything decays as e^{−a B(t)}.
    position_noise, velocity_noise : float
        ε ≥ 0 and σ > 0, the noise of the positions and of the velocities.
    velocity_variance : float
        v₀ > 0, variance of each velocity at t = 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the schedule is made for a process of another kind.
    """

    schedule: NoiseSchedule
    damping: Positive = 2.0
    position_noise: NonNegative = 0.0
    velocity_noise: Positive = 2**0.5
    velocity_variance: Positive = 0.01
    # formulas in σ² and B(t) are those of vp and ve: here they have no number
    variance: float = field(default=np.nan, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_instance(NoiseSchedule, schedule=self.schedule)
        require_positive(
            damping=self.damping,
            velocity_noise=self.velocity_noise,
            velocity_variance=self.velocity_variance,
        )
        require_within(0.0, 1e9, position_noise=self.position_noise)
        if self.schedule.process_variance is not None:
            raise ValueError(
                f"schedule = {type(self.schedule).__name__}: is made for the noise levels of vp or "
                "ve: must be a β of any process, such as beta_a, for kinetic"
            )
        with np.errstate(all="ignore"):
            stationary = self.stationary
            sound = stationary[0, 0] * stationary[1, 1] > stationary[0, 1] ** 2
        if not (sound and np.all(np.isfinite(1 / stationary.diagonal()))):
            raise ValueError(
                f"damping = {shown(self.damping)}, position_noise = {shown(self.position_noise)}, "
                f"velocity_noise = {shown(self.velocity_noise)}: must have a stationary covariance "
                "that float64 can hold"
            )

    def drift(self, t: npt.ArrayLike) -> Array:
        raise ValueError("process = 'kinetic': has the drift β A of pairs, and no factor of X")

    def diffusion(self, t: npt.ArrayLike) -> Array:
        raise ValueError("process = 'kinetic': has the noise √β diag(ε, σ) of pairs")

    # --- pairs (x, v) ----------------------------------------------------------------

    @property
    def generator(self) -> tuple[Array, Array]:
        """N = A + a I and D, shapes (2, 2)."""
        a = self.damping
        return (
            np.array([[a, a**2], [-1.0, -a]]),
            np.diag([self.position_noise**2, self.velocity_noise**2]),
        )

    @property
    def stationary(self) -> Array:
        """S, covariance of a pair under the stationary law, shape (2, 2)."""
        a, e2, s2 = self.damping, self.position_noise**2, self.velocity_noise**2
        x, mixed = (5 * e2 / a + a * s2) / 4, -e2 / (2 * a**2)
        return np.array([[x, mixed], [mixed, (e2 / a + a * s2) / (4 * a**2)]])

    def transition(self, clock: npt.ArrayLike) -> tuple[Array, Array]:
        """F and Q: U becomes F U + N(0, Q) over a clock h ≥ 0; of shape (..., 2, 2)."""
        return _flow(*self.generator, self.damping, clock)

    def backward_transition(self, clock: npt.ArrayLike) -> tuple[Array, Array]:
        """The same of the stationary process run backwards, S Fᵀ S⁻¹ and S − (S Fᵀ S⁻¹) S (…)ᵀ.

        The backward SDE of p_t = N(0, S): what the symmetric splitting solves exactly.
        """
        nilpotent, rate = self.generator
        reversed_ = self.stationary @ nilpotent.T @ np.linalg.inv(self.stationary)
        return _flow(reversed_, rate, self.damping, clock)

    def kernel(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """m and C: a pair is N(m x₀, C) given X₀ = x₀; shapes (..., 2) and (..., 2, 2)."""
        flow, gained = self.transition(self.schedule.integral(t))
        from_velocity = flow[..., 1]
        outer = from_velocity[..., :, None] * from_velocity[..., None, :]
        return flow[..., 0], gained + self.velocity_variance * outer

    def joint_law(self, law: Gaussian, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Law of the pairs for a Gaussian X₀: they are independent in the basis of `law`.

        Parameters
        ----------
        law : Gaussian
            Of batch shape ().
        t : array_like, shape (...)

        Returns
        -------
        mean : ndarray, shape (..., d, 2)
        covariance : ndarray, shape (..., d, 2, 2)
            λ m mᵀ + C of each eigenvalue λ.
        """
        require_single(law=law)
        m, covariance = self.kernel(t)
        mean = law.rotate(law.mean)[:, None] * m[..., None, :]
        outer = (m[..., :, None] * m[..., None, :])[..., None, :, :]
        return mean, law.eigenvalues[:, None, None] * outer + covariance[..., None, :, :]

    def terminal_kl(self, law: Gaussian) -> float:
        """KL(p_T ‖ N(0, S)) of the pairs, in nats: the mixing error of the backward SDE.

        Parameters
        ----------
        law : Gaussian
            Law of X₀, of batch shape ().
        """
        mean, _ = self.joint_law(law, self.horizon)
        flow, _ = self.transition(self.schedule.integral(self.horizon))
        # V − S = F (diag(λ, v₀) − S) Fᵀ, in coordinates in which S is the identity
        inward = np.linalg.inv(np.linalg.cholesky(self.stationary))
        start = np.zeros((law.dimension, 2, 2))
        start[:, 0, 0], start[:, 1, 1] = law.eigenvalues, self.velocity_variance
        carried = inward @ flow
        excess = np.linalg.eigvalsh(carried @ (start - self.stationary) @ carried.T)
        shift = np.sum((mean @ inward.T) ** 2)
        return float(np.sum(excess - np.log1p(excess)) + shift) / 2

    # --- the statistic y -------------------------------------------------------------

    def projection(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """c of y = cᵀu, shape (..., 2), and R = n nᵀ/(nᵀC n), shape (..., 2, 2).

        The score of a pair is −R u + c s(t, y), s that of y.
        """
        direction, nothing, q, decay, ratio = self._reduced(t)
        scale = q * np.sqrt(decay**2 + ratio)
        rest = nothing[..., :, None] * nothing[..., None, :] / q[..., None, None]
        return direction / scale[..., None], rest

    def _reduced(self, t: npt.ArrayLike) -> tuple[Array, ...]:
        """adj(C) m e^{aB}, n e^{aB}, q = nᵀC n e^{2aB}, e^{−aB} and det C/(q S_xx).

        Sums of what is accumulated (Q) and what is left of V₀: nothing cancels as B → 0, where
        C is singular, and nothing overflows as B → ∞, where m and n vanish.
        """
        a, clock = self.damping, np.asarray(self.schedule.integral(t))
        _, gained = self.transition(clock)
        decay = np.exp(-a * clock)
        adjugate = _adjugate(gained)
        m = np.stack([1 + a * clock, -clock], axis=-1)  # without e^{−aB}, as those below
        g = np.stack([a**2 * clock, 1 - a * clock], axis=-1)
        n = np.stack([clock, 1 + a * clock], axis=-1)
        left = self.velocity_variance * decay**2
        direction = np.einsum("...ij,...j->...i", adjugate, m)
        direction += left[..., None] * np.stack([g[..., 1], -g[..., 0]], axis=-1)
        q = np.einsum("...i,...ij,...j->...", n, gained, n) + left
        determinant = gained[..., 0, 0] * gained[..., 1, 1] - gained[..., 0, 1] ** 2
        determinant += left * np.einsum("...i,...ij,...j->...", g, adjugate, g)
        return direction, n, q, decay, determinant / (q * self.stationary[0, 0])

    def mean_scale(self, t: npt.ArrayLike) -> Array:
        """m̃(t): y is N(m̃ x₀, ṽ) given X₀ = x₀; shape of `t`."""
        *_, decay, ratio = self._reduced(t)
        return np.asarray(decay / np.sqrt(decay**2 + ratio))

    def kernel_variance(self, t: npt.ArrayLike) -> Array:
        """ṽ(t), as in `mean_scale`; shape of `t`."""
        *_, decay, ratio = self._reduced(t)
        return np.asarray(self.stationary[0, 0] * ratio / (decay**2 + ratio))

    def noise_variance(self, t: npt.ArrayLike) -> Array:
        """w = cᵀS c, variance of y of stationary pairs, which know nothing of the data."""
        c, _ = self.projection(t)
        return np.asarray(np.einsum("...i,ij,...j->...", c, self.stationary, c))

    def hybrid_weight(self, t: npt.ArrayLike) -> Array:
        """λ = c_v²/(C⁻¹)_vv, the weight of hybrid score matching; shape of `t`.

        With s_v = −(R u)_v + c_v s_θ(t, y), Dockhorn et al.'s loss |s_v/ℓ + ε_v|², ℓ² = (C⁻¹)_vv,
        ε_v the second noise of the Cholesky factor, is λ |s_θ(t, y) + z/√ṽ|² of the same row.
        """
        c, _ = self.projection(t)
        _, covariance = self.kernel(t)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = c[..., 1] ** 2 * self.determinant(t) / covariance[..., 0, 0]
        return np.where(covariance[..., 0, 0] > 0, weight, 0.0)

    def precision(self, t: npt.ArrayLike) -> Array:
        """C⁻¹, shape (..., 2, 2); infinite at t = 0, where positions are the data's."""
        _, covariance = self.kernel(t)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _adjugate(covariance) / self.determinant(t)[..., None, None]

    def determinant(self, t: npt.ArrayLike) -> Array:
        """det C, with its digits at small t; shape of `t`."""
        _, _, q, _, ratio = self._reduced(t)
        return np.asarray(ratio * q * self.stationary[0, 0])


def _flow(nilpotent: Array, rate: Array, a: float, clock: npt.ArrayLike) -> tuple[Array, Array]:
    """e^{−ah}(I + h N) and ∫₀ʰ e^{−2as} (I + s N) D (I + s N)ᵀ ds, of shape (..., 2, 2)."""
    h = np.asarray(clock, dtype=np.float64)
    flow = np.exp(-a * h)[..., None, None] * (np.eye(2) + h[..., None, None] * nilpotent)
    from scipy.special import factorial, gammainc  # which a job of another process does without

    order = np.arange(3)
    powers = factorial(order) / (2 * a) ** (order + 1) * gammainc(order + 1, 2 * a * h[..., None])
    once = nilpotent @ rate
    terms = np.stack([rate, once + once.T, once @ nilpotent.T])
    return flow, np.einsum("...k,kij->...ij", powers, terms)


def _adjugate(matrix: Array) -> Array:
    """Of symmetric 2 × 2 matrices."""
    return np.stack(
        [
            np.stack([matrix[..., 1, 1], -matrix[..., 0, 1]], axis=-1),
            np.stack([-matrix[..., 1, 0], matrix[..., 0, 0]], axis=-1),
        ],
        axis=-2,
    )
