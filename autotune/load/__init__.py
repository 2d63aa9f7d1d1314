"""Load: the workload, when its requests are sent, and the client that sends them.

httpx's command line (with rich, pygments and click) is kept out, as if its extra were not installed: it is a
tenth of what a client needs to be ready, and nothing here uses it.
"""

import sys

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: "not to be had", as import says
