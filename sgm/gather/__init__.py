"""The gather: from the cell files of a study to its grid, and to its pictures."""

from sgm.gather.grid import gather
from sgm.gather.pictures import gather_pictures

__all__ = ["gather", "gather_pictures"]
