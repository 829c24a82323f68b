"""Xception (Chollet 2017): depthwise separable convolutions throughout, 22.9 M parameters."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("xception", "Xception", side=299, scale="tf")
