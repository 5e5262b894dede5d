"""The theory as commands: `allconv-resnet theory linear|expressivity|landscape|isometry`."""
