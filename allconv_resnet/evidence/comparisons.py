"""The measurements whose JSON holds many figures: tables of their own, a row for each setting."""

from collections.abc import Callable
from typing import NamedTuple

from allconv_resnet.evidence.measurements import spread


class Comparison(NamedTuple):
    """A table: the rows of all files that a command writes. A file may be a pattern, for one a machine."""

    title: str
    text: str
    commands: dict[str, str]
    """Files below results/, and what writes them."""
    columns: tuple[str, ...]
    rows: Callable[[dict], list[tuple[tuple[str, ...], list[str]]]]
    """From a JSON to cells, and the commits where they are not the file's. The page adds hardware and log."""
    figure: str | None = None
    """Where the ratios are drawn, below results/."""
    ratios: Callable[[dict], list[tuple[str, dict]]] | None = None
    """From a JSON to what the figure shows: pairs of a setting and the ratios to each peer."""


PEERS = {
    "torch_compiled": "torch.compile",
    "torch_peer": "PyTorch",
    "keras_fit": "Keras `fit`",
    "keras_fit_jax": "Keras `fit` on JAX",
}
LIBRARIES = dict(list(PEERS.items())[:3])  # Keras on JAX imports TensorFlow beside it: its memory says nothing
CLIENTS = ("1", "8", "32")
TRAININGS = {
    "benchmarks/speed-cifar-train-*.json": "python benchmarks/speed.py cifar-train --batch 32 128 512",
    "benchmarks/speed-imagenet-train-*.json": "python benchmarks/speed.py imagenet-train --batch 32",
}
INFERENCE = {"benchmarks/speed-cifar-infer-*.json": "python benchmarks/speed.py cifar-infer --batch 1 32 256"}


def _setting(d, entry):
    return d["what"], str(entry["batch"]), entry["precision"]


def _commits(contenders):
    return sorted({contender["commit"] for contender in contenders if contender.get("commit")})


def _speed(d):
    rows = []
    for entry in d["entries"]:
        peers = [entry["contenders"].get(peer) for peer in PEERS]
        ratios = [spread(peer["ours_over_theirs"], ".2f") if peer else "*not run*" for peer in peers]
        rows.append(((*_setting(d, entry), *ratios), _commits(peer for peer in peers if peer)))
    return rows


def _ratios(d):
    return [
        (
            "{}, batch {}, {}".format(*_setting(d, entry)),
            {
                name.replace("`", ""): entry["contenders"][peer]["ours_over_theirs"]
                for peer, name in PEERS.items()
                if peer in entry["contenders"]
            },
        )
        for entry in d["entries"]
    ]


def _memory(d):
    rows = []
    for entry in d["entries"]:
        peers = {peer: c for peer, c in entry["contenders"].items() if peer in LIBRARIES and "memory" in c}
        ours = sorted({_gigabytes(c["ours"]) for c in peers.values()})  # one for each run that peers were measured in
        theirs = [_gigabytes(peers[peer]) if peer in peers else "*not run*" for peer in LIBRARIES]
        rows.append(((*_setting(d, entry), " to ".join(ours), *theirs), _commits(peers.values())))
    return rows


def _gigabytes(contender):
    return f"{contender['memory']['beyond_import'] / 1e9:.2f}"


def _serving(d):
    return [
        ((network, server, *(_answers(clients[number]) for number in CLIENTS)), [])
        for network, servers in d["networks"].items()
        for server, clients in servers.items()
    ]


def _answers(run):
    rates = {key: float(format(value, ".3g")) for key, value in run["requests_per_second"].items()}
    middle, slow = (float(format(run[key]["median"], ".2g")) for key in ("p50_ms", "p99_ms"))
    return f"{spread(rates, 'g')}; {middle:g}, {slow:g}"


SPEED = Comparison(
    "Speed",
    "Images a second, ours over each peer's, measured in turn in one run: above 1 ours is faster. Median (least to "
    "most, n turns). Over torch.compile the aims are 1.15 for the CIFAR train step in bfloat16 and 1 for the others, "
    "on cores with AMX. Keras's figures are of whole calls of `fit` and `predict`: "
    "[benchmarks/NOTES.md](../benchmarks/NOTES.md) has what is known of their scatter.",
    TRAININGS | INFERENCE,
    ("task", "batch", "precision", *PEERS.values()),
    _speed,
    "speed.png",
    _ratios,
)

MEMORY = Comparison(
    "Memory of a train step",
    "Peak of the process beyond that of its imports, GB; aim: at most PyTorch's.",
    TRAININGS,
    ("task", "batch", "precision", "ours", *LIBRARIES.values()),
    _memory,
)

SERVING = Comparison(
    "Serving",
    "Clients that send one image a request share the two cores with the server: requests a second (least to most, n "
    "runs); median and 99th percentile of the latency, ms.",
    {"benchmarks/serving.json": "python benchmarks/serving.py"},
    ("network", "server", *(f"clients: {number}" for number in CLIENTS)),
    _serving,
)

COMPARISONS = (SPEED, MEMORY, SERVING)
