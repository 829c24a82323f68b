"""PNASNet-5, the large one (Liu et al. 2018): 86.1 M parameters."""

from __future__ import annotations

from millrace.models.pnasnet5 import Size, architecture

ARCHITECTURE = architecture("pnasnet5_large", Size(cells=12, filters=216, stem=96), side=331)
