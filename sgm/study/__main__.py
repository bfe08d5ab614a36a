"""Print the JSON schema of a config: ``python -m sgm.study``."""

import json

from sgm.study import json_schema

print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
