"""EfficientNetV2-B0 (Tan and Le 2021): 7.2 M parameters; it scales its pixels itself."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("efficientnet_v2_b0", "EfficientNetV2B0", side=224, scale="none")
