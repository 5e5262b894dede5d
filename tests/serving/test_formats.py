"""ONNX and LiteRT files answer as the network does, warm-up records can be replayed, and every run is exported."""

import contextlib
import io
import re
import sys
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from data.image_folders import random_images, write_folder
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from training.runs import TINY, command_line

from allconv_resnet import cli
from allconv_resnet.data.source import load_data
from allconv_resnet.layers import standardize
from allconv_resnet.recipes import IMAGENET_TINY
from allconv_resnet.serving import formats
from allconv_resnet.serving.export import export_savedmodel
from allconv_resnet.training.exporting import _representative_images
from allconv_resnet.training.loop import train

WARMUP = "assets.extra/tf_serving_warmup_requests"


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(path)
    assert [each.name for each in session.get_inputs()] == ["images"]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def run_litert(path, images):
    interpreter = tf.lite.Interpreter(str(path))
    assert len(interpreter.get_input_details()) == 1
    return interpreter.get_signature_runner()(images=images)


RUNTIMES = {"onnx": (".onnx", run_onnx), "litert": (".tflite", run_litert)}


RECIPE = TINY.replace(mirror_average=True, steps=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in bfloat16, which the files' converters do not know, of a network that mirrors the images."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(RECIPE.replace(precision="bfloat16"), run_dir) is None
    return run_dir


IGNORED = pytest.mark.filterwarnings(
    "ignore:.*tf.lite.Interpreter is deprecated", "ignore:.*np.object:FutureWarning", "ignore:.*`np.bool8`"
)


def export(run_dir, capfd, name, *options):
    """Exports a file, and returns its path after a look at what else has been written and said."""
    capfd.readouterr()
    assert command("export", run_dir, *options) == 0
    path = Path(capfd.readouterr().out.strip())  # and nothing else on standard output
    assert path.name == name
    beside = sorted(entry.name for entry in path.parent.iterdir())
    assert beside == sorted([name, f"{name}.MODEL_CARD.md", f"{name}.labels.txt"])
    assert Path(f"{path}.labels.txt").read_text().splitlines() == [str(i) for i in range(10)]
    return path


@pytest.fixture(scope="module")
def expected(finished):
    """The test images, and the logits of the network in float32."""
    images = load_data("digits").arrays("test")[0]
    model = RECIPE.build_model()
    model.set_weights(keras.saving.load_model(finished / "model.keras").get_weights())
    return images, model.predict(standardize(images), verbose=0)


@IGNORED
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_file_answers_as_the_network_in_float32(finished, expected, tmp_path, capfd, kind):
    suffix, run = RUNTIMES[kind]
    path = export(finished, capfd, f"20{suffix}", "--format", kind, "--output-dir", tmp_path)
    images, logits = expected
    for part in (images, images[:1]):  # of any number
        answer = run(path, part.astype(np.float32))
        np.testing.assert_allclose(answer["logits"], logits[: len(part)], rtol=1e-4, atol=1e-5)
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(answer["probabilities"], expected[: len(part)], rtol=1e-4, atol=1e-6)

    said = capfd.readouterr()
    assert "[W:onnxruntime" not in said.err + said.out
    other = np.zeros((1, 40, 40, 3), np.float32)
    card = Path(f"{path}.MODEL_CARD.md").read_text()
    if kind == "onnx":
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Got: 40 Expected: 32"):
            run(path, other)
        assert "cropped and resized before: ONNX Runtime refuses them." in card
    else:
        assert run(path, other)["logits"].shape == (1, 10)  # LiteRT lets a network of convolutions have it
        assert "cropped and resized before: LiteRT computes something else without a word." in card
    check_call(path, card, images[0], logits[0])


def check_call(path, card, image, logits):
    """Runs the Python of a card on an image."""
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    assert code.count('"IMAGE"') == 1
    keras.utils.save_img(path.parent / "digit.png", image, scale=False)
    code = code.replace('"IMAGE"', '"digit.png"')
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "card", "exec"), {})
    label, probability = out.getvalue().split()
    assert label == str(logits.argmax())
    assert float(probability) == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), rel=0.02)


@IGNORED
def test_int8_of_a_run_in_bfloat16(finished, expected, tmp_path, capfd):
    quantized = export(finished, capfd, "20.int8.tflite", "--format", "litert", "--quantize", "int8",
                       "--output-dir", tmp_path / "int8")  # fmt: skip
    whole = export(finished, capfd, "20.tflite", "--format", "litert", "--output-dir", tmp_path / "float")
    assert quantized.stat().st_size < 0.6 * whole.stat().st_size
    interpreter = tf.lite.Interpreter(str(quantized))
    kernels = [
        each for each in interpreter.get_tensor_details() if each["dtype"] is np.int8 and len(each["shape"]) == 4
    ]
    assert len(kernels) > 4
    images, logits = expected
    for part in (images, images[:1]):  # the last answer is that to the image of the card's example
        answer = run_litert(quantized, part.astype(np.float32))
        assert np.sqrt(np.mean((answer["logits"] - logits[: len(part)]) ** 2)) < 0.05 * logits.std()
    card = Path(f"{quantized}.MODEL_CARD.md").read_text()
    assert "int8, with the ranges of 256 training images" in card
    check_call(quantized, card, images[0], np.log(answer["probabilities"][0]))  # in steps of 1/256


def test_int8_of_records_sees_images_as_evaluation_does(prepared, tmp_path):
    recipe = IMAGENET_TINY.replace(dataset="imagenet2012")
    images = _representative_images(recipe, prepared)
    assert images.shape[1:] == (64, 64, 3) and images.min() >= 0 and images.max() <= 255 and images.std() > 20


def test_int8_of_a_few_files_of_which_one_is_damaged(tmp_path):
    write_folder(tmp_path, random_images(7, (None, None, 3)), [0, 1] * 3 + [0], "ab")
    (tmp_path / "a" / "00000.png").write_bytes(b"no image")
    recipe = IMAGENET_TINY.replace(dataset=str(tmp_path), num_classes=2, batch_size=4, train_split="train")
    assert _representative_images(recipe, None).shape == (6, 64, 64, 3)


def test_what_cannot_be_quantized(finished, tmp_path, capsys):
    for kind in ("savedmodel", "onnx"):
        assert command("export", finished, "--format", kind, "--quantize", "int8", "--output-dir", tmp_path) == 2
        assert f"--quantize needs --format litert. Received: quantize=int8, format={kind}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@IGNORED
def test_exports_by_keras_itself_have_one_input(tmp_path):
    """A user's own `model.export` of a network of this package, also within another model."""
    inputs = keras.Input((32, 32, 3), name="images")
    model = keras.Model(inputs, keras.layers.Softmax()(RECIPE.build_model()(inputs)))
    model(np.zeros((1, 32, 32, 3), np.float32))
    for kind, suffix in formats.SUFFIXES.items():
        model.export(str(tmp_path / f"network{suffix}"), format=kind, verbose=False)
    model.export(str(tmp_path / "network"), verbose=False)
    assert len(onnxruntime.InferenceSession(tmp_path / "network.onnx").get_inputs()) == 1
    assert len(tf.lite.Interpreter(str(tmp_path / "network.tflite")).get_input_details()) == 1
    for directory in (tmp_path / "network", export_savedmodel(RECIPE.build_model(), range(10), tmp_path / "ours", 1)):
        graph = (
            saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
        )
        operations = [node.op for function in graph.library.function for node in function.node_def]
        assert "Conv2D" in operations and "PlaceholderWithDefault" not in operations


def test_a_format_that_cannot_be_written(finished, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    assert command("export", finished, "--format", "litert", "--output-dir", tmp_path / "file") == 2
    assert "output_dir must be a directory that can be written to" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it were not installed
    from keras.src.utils import module_utils

    monkeypatch.setattr(module_utils, "tf2onnx", module_utils.LazyModule("tf2onnx"))
    assert command("export", finished, "--format", "onnx", "--output-dir", tmp_path) == 2
    assert "pip install -e '.[onnx]'" in capsys.readouterr().err
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


@pytest.mark.slow
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
