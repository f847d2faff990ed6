"""Layers of the networks: `transformer`, `norms`, and `backbones` (`resnet`, `efficientnet_lite`, transformers')."""
