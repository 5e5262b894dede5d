#!/usr/bin/env python3
"""Trains Hardt & Ma's all-convolutional residual network (arXiv 1611.04231, section 4.2) on ImageNet.

    python train_imagenet.py --data-dir DIR                           35.7M parameters, for GPUs
    python train_imagenet.py --data-dir DIR --recipe imagenet-plain   21.1M parameters, the widths of He et al.
    python train_imagenet.py --data-dir DIR --recipe imagenet-tiny    64x64 crops, a network for CPUs
    python train_imagenet.py --data-dir DIR --bad-images fail         stop at an image that cannot be decoded

DIR is a directory of tensorflow-datasets with imagenet2012 prepared. The same command with the same run directory
continues the run. `allconv-resnet evaluate RUN_DIR --follow` evaluates its checkpoints while it trains.
"""

import allconv_resnet_command

if __name__ == "__main__":
    with allconv_resnet_command.starting():
        from allconv_resnet import cli, recipes
    cli.train_command(tuple(recipe.name for recipe in recipes.IMAGENETS))
