"""Backbones, the classifier around them, and checkpoints. The table of architectures is here without torch."""

from cifarnet.models.registry import ARCHS, Arch, build_backbone, check_arch, find_arch

__all__ = ["ARCHS", "Arch", "build_backbone", "check_arch", "find_arch"]
