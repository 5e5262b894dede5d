"""Balduzzi et al., "The Shattered Gradients Problem" (arXiv 1702.08591): gradients at initialization."""
