"""One thread: the tensors are tiny, and results do not depend on how many cores the machine has."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
