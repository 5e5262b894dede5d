"""The theorems of four papers as float64 functions: `linear`, `expressivity`, `landscape`, `isometry`, `gradients`.

The five modules are the public doors. The code behind them is ordered by paper: `hardt_ma` (arXiv 1611.04231), `shamir`
(arXiv 1804.06739), `tarnowski` (arXiv 1809.08848) and `balduzzi` (arXiv 1702.08591); `autodiff` and `checks` serve all
of them, and `commands` has the experiments of `allconv-resnet theory`. Modules are loaded on first use, so that `import
allconv_resnet` takes no longer than `import keras`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
