"""JSON results, tables, progress and figures of the theory commands."""

import json

import numpy as np
import pytest

from allconv_resnet.data import source
from allconv_resnet.errors import BadInput
from allconv_resnet.plotting import add_grids, new_figure, save_figure
from allconv_resnet.theory.commands import reporting


def test_results_are_rounded_and_not_finite_numbers_become_null(tmp_path):
    path = tmp_path / "new" / "results.json"
    reporting.write_results(
        path, values=np.array([1 / 3, np.inf, np.nan]), count=np.int64(3), place=tmp_path, flag=True
    )
    written = json.loads(path.read_text())
    assert written.pop("environment")["versions"]["numpy"] == np.__version__
    assert written == {"values": [0.3333333, None, None], "count": 3, "place": str(tmp_path), "flag": True}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_tables_align_their_columns(capsys):
    reporting.print_table(("name", "value"), [("first", 1.23456), ("b", None)])
    assert capsys.readouterr().out == "name   value\nfirst  1.235\nb          -\n"


def test_progress_is_shown_at_the_end_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    show = reporting.progress_callback("job")
    show(1, 2000)
    show(2000, 2000)
    assert capsys.readouterr().err == "\r\033[Kjob: 2,000/2,000\n"


def test_images_have_mean_0_and_standard_deviation_1(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images[0] = 7  # a constant image stays finite
    monkeypatch.setattr(reporting, "load_images", lambda name, data_dir: (images, np.arange(5)))
    x, labels = reporting.load_cifar10(None)
    assert x.dtype == np.float32 and np.array_equal(labels, np.arange(5)) and np.all(x[0] == 0)
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(x[1:].std(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_the_digits_are_advised_only_where_they_can_be_chosen(monkeypatch):
    def fails(*_):
        raise BadInput(
            "cifar10 is not prepared; `train_cifar.py --recipe digits` trains on embedded data and needs no network"
        )

    monkeypatch.setattr(source, "load_data", fails)
    with pytest.raises(BadInput, match="not prepared; `--data digits` trains"):
        reporting.load_images("cifar10", None)
    with pytest.raises(BadInput, match=r"not prepared$"):
        reporting.load_images("cifar10", None, other=False)


def test_figures_are_saved_in_a_new_directory(tmp_path):
    figure, axes = new_figure(4, 3, columns=2)
    axes[0].plot([1, 2])
    add_grids(figure)
    save_figure(figure, tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


PEAK = """
import sys
import allconv_resnet_command
sys.argv = ["allconv-resnet", "theory", *sys.argv[1:]]
with allconv_resnet_command.starting():  # fewer depths and networks, which do not matter for the memory
    from allconv_resnet.theory.commands import gradients, same_cumulant
gradients.DEPTHS, same_cumulant.NETWORKS = gradients.DEPTHS[:2], same_cumulant.NETWORKS[:1]
try:
    allconv_resnet_command.main()
except SystemExit as stop:
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    print("status", stop.code, "kilobytes", lines["VmHWM"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment",
    [
        ["landscape", "--experiment", "regret", "--steps", "10"],
        ["isometry", "--experiment", "training", "--steps", "1", "--width", "16", "--depth", "2", "--seeds", "1"],
        ["gradients", "--seeds", "1", "--images", "4"],
    ],
    ids=lambda experiment: experiment[0],
)
def test_experiments_on_cifar10_need_little_more_than_a_gigabyte(experiment, prepared, run_python, tmp_path):
    """TensorFlow takes 0.8 GB of it, and the images 0.15. Reading them in one batch took 0.35 more."""
    done = run_python("-c", PEAK, *experiment, "--data", "cifar10", "--data-dir", prepared, "--output-dir", tmp_path)
    _, status, _, peak = done.stdout.splitlines()[-1].split()
    assert status == "0" and int(peak) * 1024 < 1.25e9, done.stdout + done.stderr
