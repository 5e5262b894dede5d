"""ONNX and LiteRT files answer as the network does, warm-up records can be replayed, and every run is exported."""

import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from training.runs import TINY, command_line

from allconv_resnet import cli
from allconv_resnet.data.source import load_data
from allconv_resnet.layers import standardize
from allconv_resnet.serving import formats
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.training.loop import train

WARMUP = "assets.extra/tf_serving_warmup_requests"


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def run_litert(path, images):
    return tf.lite.Interpreter(str(path)).get_signature_runner()(images=images)


RUNTIMES = {"onnx": (".onnx", run_onnx), "litert": (".tflite", run_litert)}


RECIPE = TINY.replace(mirror_average=True, steps=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in bfloat16, which the files' converters do not know, of a network that mirrors the images."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(RECIPE.replace(precision="bfloat16"), run_dir) is None
    return run_dir


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated", "ignore:.*np.object:FutureWarning")
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_file_answers_as_the_network_in_float32(finished, tmp_path, capsys, kind):
    suffix, run = RUNTIMES[kind]
    assert command("export", finished, "--format", kind, "--output-dir", tmp_path) == 0
    path = tmp_path / f"20{suffix}"
    assert capsys.readouterr().out.split()[-1] == str(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    images = load_data("digits").arrays("test")[0]
    model = RECIPE.build_model()
    model.set_weights(keras.saving.load_model(finished / "model.keras").get_weights())
    logits = model.predict(standardize(images), verbose=0)
    for part in (images, images[:1]):  # of any number
        answer = run(path, part.astype(np.float32))
        np.testing.assert_allclose(answer["logits"], logits[: len(part)], rtol=1e-4, atol=1e-5)
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(answer["probabilities"], expected[: len(part)], rtol=1e-4, atol=1e-6)


def test_a_format_that_cannot_be_written(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    assert command("export", finished, "--format", "litert", "--output-dir", tmp_path / "file") == 2
    assert "cannot be written to" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it were not installed
    from keras.src.utils import module_utils

    monkeypatch.setattr(module_utils, "tf2onnx", module_utils.LazyModule("tf2onnx"))
    assert command("export", finished, "--format", "onnx", "--output-dir", tmp_path) == 2
    assert "pip install 'allconv_resnet[onnx]'" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert formats.SUFFIXES.keys() == RUNTIMES.keys()


@pytest.mark.parametrize("channels", [1, 3])
def test_warm_up_records_are_requests_that_the_model_answers(tmp_path, channels):
    model = TINY.replace(image_size=(32, 32, channels)).build_model()
    directory = export_savedmodel(model, range(10), tmp_path, 1)
    served = tf.saved_model.load(str(directory))
    requests = {}
    for record in tf.data.TFRecordDataset(str(directory / WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        requests[request.model_spec.signature_name] = request.inputs
    assert sorted(requests) == ["serve_bytes", "serve_uint8", "serving_default"]
    for name, inputs in requests.items():
        answer = served.signatures[name](images=tf.constant(tf.make_ndarray(inputs["images"])))
        assert answer["logits"].shape == (1, 10)


def test_every_run_is_exported_at_its_end(tmp_path, capsys):
    arguments = [option for option in command_line(TINY.replace(steps=2), tmp_path) if option != "--no-export"]

    def run(*more):
        with pytest.raises(SystemExit) as stop:
            cli.train_command(("digits",), [*arguments, *more])
        assert stop.value.code == 0
        return capsys.readouterr().err

    assert f"Exported to {tmp_path / 'export' / '2'}" in run()
    card = tmp_path / "export" / "2" / "MODEL_CARD.md"
    before = card.stat().st_mtime_ns
    assert "Exported" not in run() and card.stat().st_mtime_ns == before  # it is there already
    assert "Exported" not in run("--steps", "3", "--no-export")
    assert f"Exported to {tmp_path / 'export' / '3'}" in run("--steps", "3")
    assert command("predict", tmp_path / "export", write_digit(tmp_path)) == 0
    assert "digit.png: " in capsys.readouterr().out


def write_digit(directory):
    path = directory / "digit.png"
    path.write_bytes(tf.io.encode_png(load_data("digits").arrays("test")[0][0]).numpy())
    return path
