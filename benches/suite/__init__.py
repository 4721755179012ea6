"""The asv suite: the history of this project's own figures. `make asv` runs it on this commit.

asv keeps the distribution behind a figure when a `track_` function returns its samples as
``{"samples": [...], "number": 1}``: undocumented, so asv is pinned, and a test holds it. Intervals
and the significance in `asv compare` then work for bytes and ratios too.

It stands apart from what it calls, since asv takes for a benchmark whatever has a name like one.
"""

import sys
from pathlib import Path

# asv makes only this folder's parent importable. The harness must be that of this very checkout,
# also where another one is installed.
sys.path.insert(0, str(Path(__file__).parents[2]))
