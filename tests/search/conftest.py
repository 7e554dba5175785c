"""One thread, as for the tests of bounds."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
