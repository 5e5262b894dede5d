"""The networks that this project compares with, each as its own paper describes it, for small images.

all_cnn_c       Springenberg et al. 2014 (arXiv 1412.6806), table 1, "All-CNN-C"
resnet          He et al. 2015 (arXiv 1512.03385), section 4.2: 6n + 2 layers
densenet_bc     Huang et al. 2016 (arXiv 1608.06993), bottlenecks and compression
airbench        Jordan 2024 (arXiv 2404.00498), for short trainings

Hardt & Ma compare with the first three (table 2).
"""

from allconv_resnet.baselines.airbench94 import Bias, airbench
from allconv_resnet.baselines.all_cnn import all_cnn_c
from allconv_resnet.baselines.cifar_resnets import IdentityShortcut, resnet
from allconv_resnet.baselines.densenet import densenet_bc

__all__ = ["Bias", "IdentityShortcut", "airbench", "all_cnn_c", "densenet_bc", "resnet"]
