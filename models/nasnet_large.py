"""NASNet-A, the large one (Zoph et al. 2018): 88.9 M parameters."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("nasnet_large", "NASNetLarge", side=331, scale="tf")
