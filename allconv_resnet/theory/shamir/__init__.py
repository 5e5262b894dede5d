"""Shamir, "Are ResNets Provably Better than Linear Predictors?" (arXiv 1804.06739): landscape and regret."""
