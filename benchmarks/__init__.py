"""Side-by-side measurements: ours beside the plain way, on the same inputs, in one run, outputs compared."""

import os

# Before any peer is imported: no hub is asked for anything, and no bars between the lines.
os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
