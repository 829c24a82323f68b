"""NASNet-A, the small one (Zoph et al. 2018): 5.3 M parameters."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("nasnet_mobile", "NASNetMobile", side=224, scale="tf")
