#!/usr/bin/env python3
"""Trains Hardt & Ma's all-convolutional residual networks (arXiv 1611.04231, section 4.1) on small images.

    python train_cifar.py --data-dir DIR                          table 1: 13.5M parameters, for a GPU
    python train_cifar.py --data-dir DIR --recipe cifar100        the same with 100 classes
    python train_cifar.py --data-dir DIR --recipe cifar10-small   a smaller network for CPUs
    python train_cifar.py --data-dir DIR --recipe resnet20        a network that the paper compares with
    python train_cifar.py --recipe digits                         embedded data, under a minute on a CPU
    python train_cifar.py --recipe digits --steps 900 --flip      any field of a recipe is an option

The same command with the same run directory continues the run. results/README.md has the measured accuracies.
"""

import allconv_resnet_command

if __name__ == "__main__":
    with allconv_resnet_command.starting():
        from allconv_resnet import cli, recipes
    cli.train_command(tuple(recipe.name for recipe in recipes.SMALL_IMAGES))
