"""Property tests of one family, a user's or ours: `sgm check`.

A *property* is a function of what the family builds, the subject. It returns what it measured,
in a few words, or raises `PropertyError` with the first offending value; the first line of its
docstring is the statement that it tests. One module a kind lists those of its kind in
`PROPERTIES`, and what they are tested on in `subjects`.

`sgm check` prints a line a property; the package's own tests call the same functions.
"""

from sgm.run.properties.findings import Finding, InapplicableError, PropertyError, findings, judge
from sgm.run.properties.kinds import KINDS, examine

__all__ = ["KINDS", "Finding", "InapplicableError", "PropertyError", "examine", "findings", "judge"]
