"""Targets: the laws π_data that the samplers are asked for, of known law or empirical.

Gaussian, with μ = mean · (1, …, 1):

    isotropic                Σ = variance · I
    heteroscedastic_slides   Σ diagonal, 10 on the first five coordinates, 0.1 elsewhere
    heteroscedastic_blocks   Σ diagonal, five blocks of d/5 coordinates: 1, 0.01, 1, 1, 1
    correlated               Σ_jj′ = 1/√(|j − j′| + offset)
    gaussian_file            μ and Σ from a file
    digits_gaussian          μ and Σ of the digits

of known density, but not Gaussian:

    funnel                   x₁ ~ N(0, spread²),  x_j | x₁ ~ N(0, e^{2 slope x₁})
    mixture                  Σ_k w_k N(μ_k, diag(v_k)), any weights, means, variances
    two_modes                0.3 N(1, 0.1²) + 0.7 N(3, 0.5²)
    grid_mixture             side² modes on a square grid, N(0, ·) on the other coordinates
    ring_mixture             modes on a circle in the plane

of either kind:

    posterior                a Gaussian or a mixture given y = H X + √r ξ
    tilted                   a component of a mixture, times a power of its classifier
    conditional              a component of a mixture of any dimension, or a class of the digits
    inpainting               a row of a data set, of which some coordinates are seen

and data sets: `digits`, `digits_images`, `breast_cancer`, `diabetes`, `wine`; `data_file`,
the user's own; `mnist` and `cifar10`, images in a local folder, and `image_folder`, PNG and
JPEG files. A builder takes keyword
parameters and raises ValueError on a value out of range; the message names it.
"""

from sgm.targets.base import LawTarget, Target, Transform
from sgm.targets.classes import (
    ClassOfData,
    ClassOfLaw,
    LabelledTarget,
    class_count,
    conditional,
    drawn_labels,
)
from sgm.targets.datasets import (
    breast_cancer,
    diabetes,
    digits,
    digits_gaussian,
    digits_images,
    wine,
)
from sgm.targets.empirical import DataTarget, EmpiricalTarget
from sgm.targets.files import data_file, gaussian_file
from sgm.targets.folder import image_folder
from sgm.targets.gaussians import (
    correlated,
    correlation_matrix,
    heteroscedastic_blocks,
    heteroscedastic_slides,
    isotropic,
)
from sgm.targets.images import ImageTarget, cifar10, mnist
from sgm.targets.inpainting import SeenData, inpainting, observation_of
from sgm.targets.mixtures import funnel, grid_mixture, mixture, ring_mixture, two_modes
from sgm.targets.posteriors import (
    GaussianPosterior,
    MixturePosterior,
    Observation,
    posterior,
    tilted,
)

__all__ = [
    "ClassOfData",
    "ClassOfLaw",
    "DataTarget",
    "EmpiricalTarget",
    "GaussianPosterior",
    "ImageTarget",
    "LabelledTarget",
    "LawTarget",
    "MixturePosterior",
    "Observation",
    "SeenData",
    "Target",
    "Transform",
    "breast_cancer",
    "cifar10",
    "class_count",
    "conditional",
    "correlated",
    "correlation_matrix",
    "data_file",
    "diabetes",
    "digits",
    "digits_gaussian",
    "digits_images",
    "drawn_labels",
    "funnel",
    "gaussian_file",
    "grid_mixture",
    "heteroscedastic_blocks",
    "heteroscedastic_slides",
    "image_folder",
    "inpainting",
    "isotropic",
    "mixture",
    "mnist",
    "observation_of",
    "posterior",
    "ring_mixture",
    "tilted",
    "two_modes",
    "wine",
]
