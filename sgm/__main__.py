"""``python -m sgm`` is the console script `sgm`."""

import sys

from sgm.cli import main

sys.exit(main())
