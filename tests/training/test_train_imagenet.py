"""Training on records of JPEG files: the run directory, resuming, bad images, evaluation beside the training."""

import json
import shutil
import threading

import numpy as np
import pytest
from data.image_folders import random_images, write_folder
from data.jpegs import BAD, write_records
from training.runs import metrics, state

from allconv_resnet import cli, recipes
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.progress import Progress
from allconv_resnet.training import evaluate, reports, run_directory
from allconv_resnet.training.loop import train

TINY = recipes.IMAGENET_TINY.replace(
    num_classes=30, image_size=(24, 24, 3), stem=(8, 3, 2, 1), stages=((1, 16, 2), (1, 32, 2)), epoch_images=30,
    batch_size=6, steps=12, log_every=1, evaluate_every=4, checkpoint_every=5, shuffle_buffer=7, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    write_records(directory, classes=30, shards=(15, 15), bad=True)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run that was never interrupted."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(TINY, run_dir, data_dir) is None
    return run_dir


def lines(run_dir, split):
    return [line for line in run_directory.read_metrics(run_dir) if line["split"] == split]


def test_the_run_directory_has_both_errors_and_the_skipped_images(finished):
    training, tests = lines(finished, "train"), lines(finished, "test")
    assert [line["step"] for line in training] == list(range(1, 13))
    # Two epochs and two fifths: every bad image was met twice or three times.
    assert 2 * len(BAD) <= sum(line.get("skipped", 0) for line in training) <= 3 * len(BAD)
    assert [line["step"] for line in tests] == [4, 8, 12]
    assert all(line["images"] == 30 - len(BAD) for line in tests)
    assert all(0 <= line["top5_error"] <= line["error"] <= 1 for line in training + tests)
    # Times 0.94 every two epochs of five steps.
    rates = [line["learning_rate"] for line in training]
    assert rates == pytest.approx([0.05] * 10 + [0.05 * 0.94] * 2)
    assert (finished / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_never_interrupted(finished, data_dir, tmp_path):
    run_dir = tmp_path / "run"
    train(TINY.replace(steps=5), run_dir, data_dir)
    train(TINY.replace(steps=7), run_dir, data_dir)
    for path in run_dir.glob("checkpoints/step-7.*"):  # as after a kill behind step 7
        path.unlink()
    train(TINY, run_dir, data_dir)
    first, second = state(finished, 12), state(run_dir, 12)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    ends = (5, 7)  # where the shorter runs were evaluated as well
    assert metrics(finished) == [
        line for line in metrics(run_dir) if not (line["split"] == "test" and line["step"] in ends)
    ]


def test_a_whitened_stem_needs_images_in_memory(data_dir, tmp_path):
    with pytest.raises(BadInput, match="A whitened stem needs a dataset in memory"):
        train(TINY.replace(whitened_stem=True), tmp_path / "run", data_dir)
    assert not (tmp_path / "run").exists()


def test_bad_images_can_end_the_run(data_dir, tmp_path):
    with pytest.raises(RunFailed, match=r"These files cannot be decoded as JPEG or PNG: .*JPEG"):
        train(TINY.replace(bad_images="fail"), tmp_path / "run", data_dir)


@pytest.fixture
def few_photos(tmp_path):
    """The directory of four images to train on and two to test on, and a recipe whose batches have one image."""
    photos = random_images(6, (None, None, 3))
    write_folder(tmp_path / "photos" / "train", photos[:4], [0, 1, 0, 1], ("cat", "dog"))
    write_folder(tmp_path / "photos" / "val", photos[4:], [0, 1], ("cat", "dog"))
    return tmp_path / "photos", TINY.replace(
        dataset=str(tmp_path / "photos"), num_classes=2, train_split="train", test_split="val", epoch_images=4,
        batch_size=1, steps=12, evaluate_every=12, checkpoint_every=5,
    )  # fmt: skip


def test_an_interval_without_an_image_that_can_be_read_does_not_end_the_run(few_photos, tmp_path, monkeypatch):
    photos, recipe = few_photos
    (photos / "train" / "cat" / "00000.png").write_bytes(b"no image")
    monkeypatch.setattr(Progress, "due", lambda self: True)  # the line of progress has the means too
    assert train(recipe, tmp_path / "run") is None
    skipped = {line["step"]: line.get("skipped", 0) for line in lines(tmp_path / "run", "train")}
    missing = set(range(1, 13)) - set(skipped)
    assert len(missing) == 3 and sum(skipped.values()) == len(missing - {12})  # once in each of three epochs
    assert all(skipped[step + 1] for step in missing - {12} if step + 1 in skipped)


def test_a_run_without_an_image_that_can_be_read_ends(few_photos, tmp_path):
    photos, recipe = few_photos
    for path in photos.glob("train/*/*"):
        path.write_bytes(b"no image")
    for steps in (12, 2):
        with pytest.raises(RunFailed, match=f"None of {min(steps, 4)} images could be read"):
            train(recipe.replace(steps=steps), tmp_path / f"run-{steps}")


def test_evaluate_repeats_what_training_measured(finished, data_dir, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(finished), "--data-dir", str(data_dir)])
    line = lines(finished, "test")[-1]
    assert stop.value.code == 0
    expected = f"step 12: test loss {line['loss']:.4f}, test error {line['error']:.2%}, top-5 {line['top5_error']:.2%}"
    assert expected in capsys.readouterr().out


def test_every_checkpoint_is_evaluated_beside_the_training(finished, data_dir, tmp_path):
    """Copies the checkpoints of a finished run one after the other to where a second process would follow them."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir, ignore=shutil.ignore_patterns("step-1?.*", "model.keras"))
    seen = []

    def watch():
        seen.extend(result["step"] for result in evaluate.follow_run(run_dir, data_dir, pause=0.05))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in (10, 12):
        while not seen and not run_directory.read_metrics(run_dir, reports.EVALUATIONS):
            watcher.join(0.05)
            assert watcher.is_alive()
        for path in (finished / "checkpoints").glob(f"step-{step}.npz"):
            shutil.copy(path, run_dir / "checkpoints")
        while step not in {line["step"] for line in run_directory.read_metrics(run_dir, reports.EVALUATIONS)}:
            watcher.join(0.05)
            assert watcher.is_alive() or step == 12
    watcher.join(60)
    assert not watcher.is_alive() and seen == [5, 10, 12]
    evaluated = {line["step"]: line for line in run_directory.read_metrics(run_dir, reports.EVALUATIONS)}
    assert evaluated[12] == pytest.approx(lines(finished, "test")[-1])
    assert list(evaluate.follow_run(run_dir, data_dir)) == []  # nothing is evaluated twice


def test_a_damaged_newest_checkpoint_does_not_keep_the_evaluation_busy(finished, data_dir, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (run_dir / "checkpoints" / "step-12.npz").write_bytes(b"")
    for expected in ([5, 10], []):
        assert [result["step"] for result in evaluate.follow_run(run_dir, data_dir)] == expected
    assert [line["step"] for line in run_directory.read_metrics(run_dir, reports.EVALUATIONS)] == [5, 10]


def test_the_recipes_are_those_of_the_paper():
    paper = recipes.IMAGENET
    assert (paper.run.batch_size, paper.optimizer.momentum, paper.run.steps) == (256, 0.9, 700_000)
    schedule = paper.build_schedule()
    assert [float(schedule(step)) for step in (0, 10_008, 10_009, 699_999)] == pytest.approx(
        [0.1, 0.1, 0.094, 0.1 * 0.94**69]
    )
    assert paper.build_model().count_params() - 656 * 1000 == 35_673_120
    assert recipes.IMAGENET_PLAIN.build_model().count_params() - 512 * 1000 == 21_095_616


def test_boundaries_belong_to_another_schedule():
    with pytest.raises(BadInput, match="boundaries is a field of schedule steps, but this recipe has schedule epochs"):
        recipes.IMAGENET.replace(boundaries=(5,))
    assert recipes.IMAGENET.replace(schedule="steps", boundaries=(5,)).schedule.boundaries == (5,)


@pytest.mark.slow
def test_the_network_of_the_paper_on_real_files(prepared, tmp_path, run_python):
    """The row "real files" with fewer steps: training, an evaluation with both errors, a resume."""
    run_dir = tmp_path / "run"
    command = ["train_imagenet.py", "--data-dir", prepared, "--run-dir", run_dir, "--batch-size", "8", "--no-export"]
    for steps in (2, 3):
        done = run_python(*command, "--steps", steps, "--log-every", 1)
        assert done.returncode == 0, done.stderr
    assert "from step 2 to 3, 36,329,120 parameters" in done.stderr
    assert [line["step"] for line in lines(run_dir, "train")] == [1, 2, 3]
    for line in lines(run_dir, "test"):
        assert line["images"] == 100 and line["top5_error"] <= line["error"] <= 1
    assert json.loads((run_dir / "config.json").read_text())["name"] == "imagenet"
