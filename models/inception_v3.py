"""Inception v3 (Szegedy et al. 2016): 23.9 M parameters."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("inception_v3", "InceptionV3", side=299, scale="tf")
