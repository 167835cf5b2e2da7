"""Ray graphs, one a file; each reads as one line."""

import os

# Ray prints a paragraph on stdout for each worker that dies; what came of its unit, the unit's row says. Ray reads this
# once, when it is imported.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX", r"^(A worker died or was killed|Task \S+ failed\. There are infinite)"
)
