"""Logs, and what stands beside them in a run directory, when they are damaged or cannot be written."""

import shutil

import pytest
import tensorflow as tf
from training.finished_runs import command, train_again
from training.runs import SMALL

from allconv_resnet.training import events, exporting, json_lines, reports, run_directory
from allconv_resnet.training.loop import train


@pytest.mark.parametrize("without", ["", "tensorboard.summary"], ids=["with events", "without events"])
def test_a_log_on_a_full_disk_ends_the_run_in_a_sentence(start, tmp_path, without):
    recipe = SMALL.replace(steps=600, boundaries=(), evaluate_every=10_000, checkpoint_every=10_000)
    run = start(recipe, tmp_path / "run", file_size_limit=20_000, WITHOUT_MODULES=without)
    assert run.wait() == 1
    said = run.output()
    last = said.strip().splitlines()[-1]
    assert last.startswith("failed: ") and "can no longer be written to" in last
    assert "Traceback" not in said or not without  # TensorBoard shows one of its own thread
    assert ("package tensorboard is not installed" in said) == bool(without)


def test_what_fails_beside_the_log_is_an_error_of_the_operating_system(tmp_path):
    class Full:
        def fail(self, *_):
            raise tf.errors.ResourceExhaustedError(None, None, "events; No space left on device")

        add_scalar = flush = close = fail

    log = events.Events(tmp_path, 0, print)
    log._new_writer = lambda directory: Full()
    for call in (lambda: log.add(1, "train", {"loss": 1.0}), log.flush, log.close):
        with pytest.raises(OSError, match="TensorBoard events cannot be written: events; No space left on device"):
            call()


def test_a_log_that_cannot_be_closed_hides_no_other_error_and_keeps_no_lock(tmp_path):
    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    metrics = reports.Metrics(tmp_path, 0, print)
    metrics._file.close()
    metrics._file = metrics._events = Full()
    with pytest.raises(ZeroDivisionError), run_directory.RunDirectory(tmp_path) as run:
        run.closing(metrics)
        raise ZeroDivisionError
    with pytest.raises(OSError, match="No space left"), run_directory.RunDirectory(tmp_path) as run:
        run.closing(Full())
    with run_directory.RunDirectory(tmp_path):
        pass


GARBAGE = {
    "binary": bytes(range(128, 256)).replace(b"\n", b""),
    "a number": b"42",
    "no step": b'{"split": "test", "loss": 1.0, "error": 0.1}',
    "no error": b'{"split": "test", "loss": 1.0, "step": 1}',
    "a step that is text": b'{"split": "test", "loss": 1.0, "error": 0.1, "step": "1"}',
    "an error that is text": b'{"split": "test", "loss": 1.0, "error": "0.1", "step": 1}',
    "a long step": b'{"split": "test", "loss": 1.0, "error": 0.1, "step": ' + b"9" * 30 + b"}",
    "a list": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_line_is_left_out_and_only_that_line(run_dir, capsys, kind):
    path = run_dir / "metrics.jsonl"
    whole = run_directory.read_metrics(run_dir)
    rows = path.read_bytes().splitlines()
    rows.insert(3, GARBAGE[kind])
    path.write_bytes(b"\n".join([*rows, b'{"step": 7, "spl']))
    damaged = path.read_bytes()
    for _ in range(2):
        assert run_directory.read_metrics(run_dir) == whole
    assert capsys.readouterr().err.count("line 4 cannot be read and is left out") == 1
    if kind not in ("no step", "empty"):  # the others are read by the same function
        json_lines.repair(path, print)
        assert run_directory.read_metrics(run_dir) == whole
        assert (run_dir / "metrics.jsonl.damaged-1").read_bytes() == damaged
        return
    assert command("plot", run_dir) == command("evaluate", run_dir) == 0
    status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    assert status == 0 and said.count("line 4 cannot be read and is left out") == 1
    assert run_directory.read_metrics(run_dir)[: len(whole)] == whole
    assert (run_dir / "metrics.jsonl.damaged-1").read_bytes() == damaged
    train(SMALL.replace(steps=8), run_dir)
    assert not (run_dir / "metrics.jsonl.damaged-2").exists()


def test_a_line_that_a_kill_cut_short_is_no_damage(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    line = '{"step": 1, "split": "test", "loss": 1.0, "error": 0.5}'
    path.write_text(line + '\n{"step": 2, "spl')
    assert len(json_lines.read(path)) == len(json_lines.repair(path, print)) == 1
    assert path.read_text() == line + "\n" and capsys.readouterr().err == ""
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"sessions": []}', '{"sessions": [{}]}', '{"sessions": 3}', '{"sess', "[]"]
)
def test_environments_that_cannot_be_read(run_dir, capsys, content):
    path = run_dir / "environment.json"
    path.write_text(content)
    assert run_directory.read_sessions(run_dir) == ([{}] if "{}]" in content else [])
    if content not in ('{"sessions": [{}]}', '{"sess'):  # the others are read by the same function
        return
    assert "not recorded" in (exporting.export_run(run_dir) / "MODEL_CARD.md").read_text()
    assert train_again(capsys, SMALL.replace(steps=8), run_dir)[0] == 0
    assert run_directory.read_sessions(run_dir)[-1]["first_step"] == 6
    if "{}]" not in content:
        assert (run_dir / "environment.json.damaged-1").read_text() == content


@pytest.mark.parametrize("content", [None, b"", b"one\ntwo\n", b"\xff\xfe\n" * 10])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_labels_are_named_and_written_again(run_dir, capsys, write_image, content, checkpoints):
    path = run_dir / "labels.txt"
    whole = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    if not checkpoints:
        shutil.rmtree(run_dir / "checkpoints")
    for arguments in (("export", run_dir), ("predict", run_dir, write_image())):
        capsys.readouterr()
        assert command(*arguments) == 2
        assert "the training command of this run writes the file again" in capsys.readouterr().err
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "has already finished" in said
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_network_is_written_again(run_dir, capsys, size):
    model = run_dir / "model.keras"
    whole = model.read_bytes()
    model.write_bytes(whole[:size])
    status, said = train_again(capsys, SMALL, run_dir)
    assert status == 0 and "from step 6" in said
    assert len(model.read_bytes()) == len(whole)


@pytest.mark.parametrize("name", [*run_directory.FILES, *run_directory.DIRECTORIES])
def test_a_file_in_place_of_a_directory_and_the_reverse(run_dir, capsys, name):
    path = run_dir / name
    if name in run_directory.FILES:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "notes.txt").write_text("the user's own")
    else:
        shutil.rmtree(path, ignore_errors=True)
        path.write_text("the user's own")
    status, said = train_again(capsys, SMALL.replace(steps=8), run_dir)
    assert status == 2 and said.startswith("error: ") and name in said and "Traceback" not in said
    assert (path / "notes.txt" if path.is_dir() else path).read_text() == "the user's own"


def test_after_a_kill_events_are_not_written_twice_and_nothing_is_left_over(run_dir):
    for place in (".", "checkpoints", "checkpoints/best", "tensorboard"):
        (run_dir / place / ".allconv_resnet-99999999.step-9.npz").write_text("")
        (run_dir / place / ".allconv_resnet-99999999.directory").mkdir()
    (run_dir / "export").mkdir()
    (run_dir / "export" / ".allconv_resnet-99999999.old.5").mkdir()  # a kill between two renames
    for path in (run_dir / "checkpoints").glob("step-6*"):
        path.unlink()
    (run_dir / "model.keras").unlink()
    assert train(SMALL, run_dir) is None
    assert not [path for path in run_dir.rglob(".*") if path.name != ".lock"]
    assert (run_dir / "export" / "5").is_dir()
    for split in ("train", "test"):
        steps = []
        for path in (run_dir / "tensorboard" / split).iterdir():
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                steps += [event.step for value in event.summary.value if value.tag == "loss"]
        assert sorted(steps) == [line["step"] for line in run_directory.read_metrics(run_dir) if line["split"] == split]


def test_events_that_cannot_be_read_are_left_alone(tmp_path):
    path = tmp_path / "events.out.tfevents.1"
    for content in (b"", b"no events at all" * 10):
        path.write_bytes(content)
        events.remove_later_events(path, 3)
        assert path.read_bytes() == content
