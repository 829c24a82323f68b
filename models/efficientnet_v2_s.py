"""EfficientNetV2-S (Tan and Le 2021): 21.6 M parameters; it scales its pixels itself."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("efficientnet_v2_s", "EfficientNetV2S", side=384, scale="none")
