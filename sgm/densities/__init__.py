"""Laws of known density: Gaussian mixtures, the funnel, products and affine images.

Every law answers for itself and for its noised versions, `scale` · X + √`variance` · Z; the
interface is `sgm.densities.base.Law`.
"""

from sgm.densities.affine import Affine
from sgm.densities.base import Law, Partition
from sgm.densities.funnel import Funnel
from sgm.densities.mixture import GaussianMixture
from sgm.densities.product import Product
from sgm.densities.tilted import TiltedMixture

__all__ = ["Affine", "Funnel", "GaussianMixture", "Law", "Partition", "Product", "TiltedMixture"]
