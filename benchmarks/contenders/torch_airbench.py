"""The network of airbench94 (Jordan 2024, arXiv 2404.00498) in PyTorch with torch.compile, trained on CIFAR-10.

    python benchmarks/contenders/torch_airbench.py --data-dir DIR --run-dir RUN --seed 0 --steps 476

Network, initial weights, augmentation, optimizer and schedule are those of the recipe `airbench94`: the weights are
taken from the Keras network, and the program ends if both do not compute the same logits. It evaluates at the end, over
each image and its mirror image. RUN has the lines of metrics.jsonl and, until the end, a checkpoint from which an
interrupted run goes on.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch users write it
from torch import nn

from allconv_resnet import baselines, environment, files
from allconv_resnet.data.source import load_data
from allconv_resnet.recipes import AIRBENCH94

WIDTHS, PADDING = AIRBENCH94.network.widths, AIRBENCH94.data.crop.padding
EVERY = 50


class Group(nn.Module):
    """Two convolutions with batch normalization, biases that learn 64 times as fast, and GELU."""

    def __init__(self, inputs, filters):
        super().__init__()
        sizes = ((inputs, filters), (filters, filters))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in sizes)
        # PyTorch's momentum is the share of the new value.
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters, 1e-12, 0.4, affine=False) for _ in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(filters)) for _ in sizes)

    def forward(self, x):
        for i in range(2):
            x = self.convs[i](x)
            x = F.max_pool2d(x, 2) if i == 0 else x
            x = F.gelu(self.norms[i](x) + 8 * self.biases[i][:, None, None], approximate="none")
        return x


class Network(nn.Module):
    """From standardized images `[n, 3, 32, 32]` to logits."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2, bias=False).requires_grad_(False)
        self.bias = nn.Parameter(torch.zeros(24))
        self.groups = nn.Sequential(*(Group(a, b) for a, b in zip((24, *WIDTHS), WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)

    def forward(self, x):
        x = self.groups(F.gelu(self.stem(x) + self.bias[:, None, None], approximate="none"))
        x = F.max_pool2d(x, 3).mean(dim=(2, 3))
        with torch.autocast("cpu", enabled=False):
            return self.head(x.float()) / 9

    def take_weights(self, model):
        """Copies the weights of the Keras network."""
        kernels = [w.numpy() for w in model.weights if len(w.shape) == 4]
        convolutions = [self.stem, *(conv for group in self.groups for conv in group.convs)]
        with torch.no_grad():
            for convolution, kernel in zip(convolutions, kernels, strict=True):
                convolution.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            self.head.weight.copy_(torch.from_numpy(model.weights[-1].numpy().T.copy()))


def standardized(images):
    """Returns uint8 images `[n, 32, 32, 3]` with mean 0 and deviation 1 each, `[n, 3, 32, 32]` with channels last."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    deviation, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
    return ((x - mean) / deviation.clamp_min(1 / x[0].numel() ** 0.5)).contiguous(memory_format=torch.channels_last)


def batches(images, labels, seed, first, steps, size):
    """Yields the batches from a step on: shuffled epochs, moved by up to two pixels, mirrored in every other epoch."""
    padded = np.pad(images, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)], mode="reflect")
    of_epoch = len(images) // size
    mirrored = np.random.default_rng((seed, 0)).random(len(images)) < 0.5
    for step in range(first, steps):
        epoch, batch = divmod(step, of_epoch)
        rows = np.random.default_rng((seed, 1, epoch)).permutation(len(images))[batch * size : (batch + 1) * size]
        moves = np.random.default_rng((seed, 2, step)).integers(2 * PADDING + 1, size=(size, 2))
        x = np.stack([padded[row, i : i + 32, j : j + 32] for row, (i, j) in zip(rows, moves, strict=True)])
        flips = mirrored[rows] ^ (epoch % 2 == 1)
        x[flips] = x[flips, :, ::-1]
        yield standardized(x), torch.from_numpy(labels[rows].astype(np.int64))


@torch.no_grad()
def error(network, images, labels):
    """Returns the share of wrong answers, with logits averaged over each image and its mirror image."""
    network.eval()
    wrong = 0
    for i in range(0, len(images), 1_000):
        x = standardized(images[i : i + 1_000])
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x) + network(x.flip(3))
        wrong += int((logits.argmax(1).numpy() != labels[i : i + 1_000]).sum())
    network.train()
    return wrong / len(images)


def check(network, model, images):
    """Ends the program unless both networks compute the same logits in float32."""
    network.eval()
    with torch.no_grad():
        ours, theirs = network(standardized(images)).numpy(), model(standardized(images).permute(0, 2, 3, 1).numpy())
    network.train()
    theirs = keras.ops.convert_to_numpy(theirs)
    if not np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max():
        raise SystemExit("The network in PyTorch computes another function than that in Keras")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    options.run_dir.mkdir(parents=True, exist_ok=True)
    log, checkpoint = options.run_dir / "metrics.jsonl", options.run_dir / "checkpoint.pt"

    data = load_data("cifar10", options.data_dir)
    (images, labels), (test_images, test_labels) = data.arrays("train"), data.arrays("test")
    network = Network().to(memory_format=torch.channels_last)
    model = baselines.airbench(mirror_average=False, images=images, seed=options.seed, dtype="float32")
    network.take_weights(model)
    check(network, model, test_images[:64])

    recipe = AIRBENCH94.replace(steps=options.steps)
    size, rate = recipe.run.batch_size, recipe.schedule.build(recipe.run)
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        recipe.schedule.learning_rate,
        recipe.optimizer.momentum,
        weight_decay=recipe.optimizer.weight_decay,
        nesterov=True,
        fused=True,
    )
    done, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        done, spent = saved["step"], saved["cpu_seconds"]
    compiled, began = torch.compile(network), time.process_time()

    for step, (x, y) in enumerate(batches(images, labels, options.seed, done, options.steps, size), done + 1):
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step - 1))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(compiled(x), y, label_smoothing=recipe.run.label_smoothing)
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            now = spent + time.process_time() - began
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state | {"cpu_seconds": now}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            print(f"step {step:,}/{options.steps:,}  loss {loss.item():.4f}  {now / 60:.1f} processor min", flush=True)
    seconds = spent + time.process_time() - began
    wrong = error(network, test_images, test_labels)
    line = {"step": options.steps, "split": "test", "error": wrong, "cpu_seconds": seconds}
    files.write_text(log, json.dumps(line | {"commit": environment.commit()}) + "\n")
    checkpoint.unlink(missing_ok=True)
    print(f"test error {wrong:.2%} after {seconds / 60:.1f} processor minutes")


if __name__ == "__main__":
    main()
