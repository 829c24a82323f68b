"""ResNet-50 (He et al. 2015): 25.6 M parameters, BGR less ImageNet's mean."""

from __future__ import annotations

from millrace.models.imagenet import application

ARCHITECTURE = application("resnet50", "ResNet50", side=224, scale="caffe")
