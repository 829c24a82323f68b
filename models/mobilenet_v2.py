"""MobileNetV2 (Sandler et al. 2018): inverted residuals, 3.5 M parameters."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("mobilenet_v2", "MobileNetV2", side=224, scale="tf")
