"""The experiments of `allconv-resnet theory linear|expressivity|landscape|isometry`, and their figures."""
