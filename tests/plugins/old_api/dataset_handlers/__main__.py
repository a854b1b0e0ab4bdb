"""A handler package of an earlier protocol."""

import json

print(json.dumps({"event": "described", "handler_api": 0, "options": {}}))
