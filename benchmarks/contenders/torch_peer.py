"""PyTorch: the same network as a torch.nn.Module, channels_last, eager or compiled.

It trains with autocast and fused SGD. For inference its weights are converted once, as in a deployment.
"""

import copy
import functools
import os

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch users write it
from torch import nn

from . import networks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Same(nn.Module):
    """A convolution with TensorFlow's SAME padding, which for stride 2 adds one pixel more after than before."""

    def __init__(self, inputs, filters, kernel, stride):
        super().__init__()
        extra = kernel - stride
        before, after = extra // 2, extra - extra // 2
        self.pad = nn.Identity() if before == after else nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(inputs, filters, kernel, stride, before if before == after else 0, bias=False)

    def forward(self, x):
        return self.conv(self.pad(x))


class Block(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1, self.conv2 = Same(inputs, filters, 3, stride), Same(filters, filters, 3, 1)
        self.stride, extra = stride, filters - inputs
        self.channels = (extra // 2, extra - extra // 2)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        if any(self.channels):
            x = F.pad(x, (0, 0, 0, 0, *self.channels))
        return x + y


class Network(nn.Module):
    def __init__(self, task):
        super().__init__()
        filters, kernel, stride, self.pool = networks.STEMS[task]
        self.stem = Same(3, filters, kernel, stride)
        blocks = []
        for count, width, stride in networks.STAGES[task]:
            for i in range(count):
                blocks.append(Block(filters, width, stride if i == 0 else 1))
                filters = width
        self.blocks = nn.Sequential(*blocks)
        self.register_buffer("projection", torch.empty(filters, networks.CLASSES[task]))

    def forward(self, x):
        x = self.stem(x)
        if self.pool > 1:
            x = F.avg_pool2d(x, self.pool)
        x = self.blocks(x).mean(dim=(2, 3))
        with torch.autocast(DEVICE, enabled=False):
            return x.float() @ self.projection

    def load(self, path):
        *kernels, projection = networks.load(path)
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        with torch.no_grad():
            self.projection.copy_(torch.from_numpy(projection))
            for convolution, kernel in zip(convolutions, kernels, strict=True):
                convolution.weight.copy_(torch.from_numpy(np.transpose(kernel, (3, 2, 0, 1)).copy()))


class Contender:
    compiled = False

    def __init__(self, task, batch, precision, weights):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.backends.cudnn.benchmark = True  # as XLA does, it measures which algorithm is the fastest
        torch.backends.cudnn.allow_tf32 = False  # so that float32 is float32; bfloat16 is not affected
        network = Network(task)
        network.load(weights)
        self.network = network.to(DEVICE, memory_format=torch.channels_last)
        self.model = torch.compile(self.network) if self.compiled else self.network
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            networks.LEARNING_RATE,
            networks.MOMENTUM,
            weight_decay=networks.WEIGHT_DECAY,
            fused=True,
        )
        self.autocast = torch.autocast(DEVICE, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        images, labels = networks.batch(task, batch)
        self.images, self.labels = self.channels_last(images), torch.from_numpy(labels).to(DEVICE)

    def channels_last(self, images):
        return torch.from_numpy(images).to(DEVICE).permute(0, 3, 1, 2)  # NHWC in memory is channels_last

    def train(self, count):
        self.model.train()
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            with self.autocast:
                loss = F.cross_entropy(self.model(self.images), self.labels)
            loss.backward()
            self.optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    @functools.cached_property
    def deployed(self):
        """The network with weights in the precision of its convolutions, which torch.compile takes as constants."""
        network = copy.deepcopy(self.network).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(self.dtype)
        if self.compiled:
            from torch._inductor import config

            config.freezing = True
            network = torch.compile(network)
        return network

    @torch.inference_mode()
    def infer(self, count):
        for _ in range(count):
            self.deployed(self.images.to(self.dtype)).cpu().numpy()

    @torch.no_grad()
    def logits(self, images):
        return self.deployed(self.channels_last(images).to(self.dtype)).cpu().numpy()
