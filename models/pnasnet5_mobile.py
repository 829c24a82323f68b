"""PNASNet-5, the small one (Liu et al. 2018): 5.1 M parameters."""

from __future__ import annotations

from millrace.models.pnasnet5 import Size, architecture

ARCHITECTURE = architecture("pnasnet5_mobile", Size(cells=9, filters=54, stem=32), side=224)
