"""Hardt & Ma, "Identity Matters in Deep Learning" (arXiv 1611.04231): linear networks and expressivity."""
