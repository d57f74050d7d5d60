"""XFaVoT: cross-modal face- and voice-style transfer, a reproducible companion of the paper.

Importing the package before PyTorch keeps OpenMP's idle threads from spinning for long: beside
other busy programs, two spinning threads train ten times slower than they need to. Who has set
OpenMP up keeps that.
"""

import os
import sys

__version__ = "0.1.0"

if "torch" not in sys.modules and not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "1000"  # rounds; libgomp reads it once, when torch is loaded
