"""The exported network answers as the trained one does, without Keras and without this package."""

import io
import json
import os
import re
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from training.runs import TINY

from allconv_resnet import cli, recipes
from allconv_resnet.data import jpeg
from allconv_resnet.data.source import load_data
from allconv_resnet.errors import BadInput
from allconv_resnet.layers import standardize
from allconv_resnet.recipes.parts.data import STANDARD_CENTRE
from allconv_resnet.serving.card import model_card
from allconv_resnet.serving.export import export_savedmodel, fit_to_size
from allconv_resnet.serving.predict import latest_version, predict_export
from allconv_resnet.training.loop import train

RNG = np.random.default_rng(0)


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trained run with an export."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(TINY, run_dir) is None
    assert command("export", run_dir) == 0
    return run_dir


@pytest.fixture(scope="module")
def served(finished):
    return tf.saved_model.load(str(latest_version(finished / "export")))


@pytest.fixture(scope="module")
def expected(finished):
    """Test images and what the Keras model says of them after the evaluation pipeline."""
    images = load_data("digits").arrays("test")[0]
    model = keras.saving.load_model(finished / "model.keras")
    return images, model.predict(standardize(images), verbose=0)


@pytest.mark.parametrize(("signature", "dtype"), [("serving_default", np.float32), ("serve_uint8", np.uint8)])
def test_there_is_no_skew_between_training_and_serving(served, expected, signature, dtype):
    images, logits = expected
    answer = {k: v.numpy() for k, v in served.signatures[signature](images=tf.constant(images.astype(dtype))).items()}
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-5, atol=1e-5)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(answer["classes"], order)
    assert answer["classes"].dtype == np.int64
    np.testing.assert_array_equal(answer["labels"], np.array([str(i) for i in range(10)], object)[order].astype("S"))
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(answer["probabilities"], np.take_along_axis(softmax, order, 1), rtol=1e-4, atol=1e-6)


def test_files_give_the_same_answers_as_pixels(served, expected):
    images, logits = expected
    answer = served.signatures["serve_bytes"](images=tf.constant([encode(image) for image in images[:50]]))
    np.testing.assert_allclose(answer["logits"], logits[:50], rtol=1e-5, atol=1e-5)


ALONE = textwrap.dedent("""
    import sys
    for name in ("keras", "allconv_resnet"):
        sys.modules[name] = None
    import numpy as np, tensorflow as tf
    images = np.load(sys.argv[2])
    answer = tf.saved_model.load(sys.argv[1]).signatures["serve_uint8"](images=tf.constant(images))
    np.save(sys.argv[3], answer["logits"].numpy())
    assert not [name for name in sys.modules if name.startswith(("keras.", "allconv_resnet."))]
""")


def test_a_process_without_keras_and_this_package_gets_the_same_answers(run_python, finished, expected, tmp_path):
    images, logits = expected
    np.save(tmp_path / "images.npy", images)
    version = latest_version(finished / "export")
    done = run_python("-c", ALONE, version, tmp_path / "images.npy", tmp_path / "logits.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_no_skew_on_500_real_images(run_python, prepared, tmp_path):
    """CIFAR-10's first 500 test images, a network for them, and a process without Keras and this package."""
    data = load_data("cifar10", prepared)
    images, model = data.arrays("test")[0][:500], recipes.CIFAR10_SMALL.replace(precision="float32").build_model()
    logits = model.predict(standardize(images), verbose=0)
    version = export_savedmodel(model, data.label_names, tmp_path / "export", version=1)
    np.save(tmp_path / "images.npy", images)
    done = run_python("-c", ALONE, version, tmp_path / "images.npy", tmp_path / "logits.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits, rtol=1e-5, atol=1e-5)
    files = tf.constant([encode(image) for image in images])
    answer = tf.saved_model.load(str(version)).signatures["serve_bytes"](images=files)
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(run_python, finished, expected, tmp_path):
    version = latest_version(finished / "export")
    tool = ("-m", "tensorflow.python.tools.saved_model_cli")
    shown = run_python(*tool, "show", "--dir", version, "--tag_set", "serve", "--signature_def", "serving_default")
    assert shown.returncode == 0, shown.stderr
    for part in ("classes", "labels", "probabilities", "logits", "DT_INT64", "DT_STRING", "(-1, -1, -1, 3)"):
        assert part in shown.stdout
    np.save(tmp_path / "images.npy", expected[0][:3].astype("float32"))
    ran = run_python(
        *tool, "run", "--dir", version, "--tag_set", "serve", "--signature_def", "serving_default",
        "--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected[1][:3], rtol=1e-5, atol=1e-5)


def test_images_of_other_sizes_are_covered_and_cropped():
    image = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_to_size(image, 32, 32), image)  # to the bit
    wide = np.zeros((1, 40, 80, 3), np.float32)
    wide[:, :, 20:60] = 200  # the middle square
    np.testing.assert_allclose(fit_to_size(wide, 20, 20)[:, :, 2:-2], 200, rtol=1e-5)
    assert fit_to_size(np.ones((1, 7, 90, 3)), 32, 32).shape == (1, 32, 32, 3)
    assert fit_to_size(np.ones((1, 33, 1, 3)), 32, 32).shape == (1, 32, 32, 3)
    constant = fit_to_size(np.full((1, 64, 50, 3), 77, np.uint8), 32, 32)
    np.testing.assert_allclose(constant, 77, rtol=1e-5)


def test_files_are_decoded_as_in_an_evaluation_on_files(tmp_path):
    model = TINY.build_model()
    directory = export_savedmodel(model, range(10), tmp_path, 1, centre=STANDARD_CENTRE)
    signatures = tf.saved_model.load(str(directory)).signatures
    for height, width in ((40, 50), (200, 131), (333, 500), (32, 32)):
        rows, columns = np.mgrid[:height, :width]
        image = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1).astype(np.uint8)
        file = tf.constant(encode(image, "JPEG", quality=95))
        window = jpeg.centre_window(tf.io.extract_jpeg_shape(file), (32, 32), STANDARD_CENTRE)
        as_evaluated = jpeg.decode_window(file, window, (32, 32))
        expected = model(standardize(as_evaluated[None]), training=False)
        answer = signatures["serve_bytes"](images=file[None])
        np.testing.assert_allclose(answer["logits"], expected, rtol=1e-5, atol=1e-5)
        # Pixels and PNG files show the same part, resized by other means.
        pixels = fit_to_size(tf.io.decode_png(encode(image))[None], 32, 32, STANDARD_CENTRE)
        answer = signatures["serve_bytes"](images=tf.constant([encode(image)]))
        np.testing.assert_allclose(answer["logits"], model(standardize(pixels)), rtol=1e-5, atol=1e-5)
        if (height, width) != (32, 32):
            assert np.abs(pixels[0] - as_evaluated).mean() < 12  # grey levels


GOOD = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)


def png_header(width, height):
    """A real one-pixel PNG file whose header claims another size."""
    content = encode(np.zeros((1, 1, 3), np.uint8))
    return content[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:]


NO_IMAGES = {
    "empty": b"",
    "text": b"not an image",
    "png signature": b"\x89PNG\r\n\x1a\n",
    "jpeg signature": b"\xff\xd8\xff",
    "cut png": encode(GOOD)[:200],
    "cut jpeg": encode(GOOD, "JPEG")[:300],
    "bmp": encode(GOOD, "BMP"),
    "gif": encode(GOOD, "GIF"),
    "bomb": png_header(30_000, 30_000),
    "overflow": png_header(2**31 - 1, 2**31 - 1),
    "no width": png_header(0, 5),
}


@pytest.mark.parametrize("content", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_refused(served, content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        served.signatures["serve_bytes"](images=tf.constant([encode(GOOD), content]))
    answer = served.signatures["serve_bytes"](images=tf.constant([encode(GOOD)]))
    assert np.isfinite(answer["logits"]).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_grey_palette_and_transparent_images_are_read(served, mode):
    file = io.BytesIO()
    Image.fromarray(GOOD).convert(mode).save(file, "PNG")
    answer = served.signatures["serve_bytes"](images=tf.constant([file.getvalue()]))
    assert answer["logits"].shape == (1, 10)


def test_predict_on_files_directories_and_standard_input(finished, expected, tmp_path, capsys, monkeypatch):
    images, logits = expected
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode(images[i]))
    (tmp_path / "notes.txt").write_text("not an image")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode(images[3]))))
    paths = [str(tmp_path), str(tmp_path / "1.png"), "-"]
    assert command("predict", finished / "export", *paths, "--json-lines", "--top", "2") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == [str(tmp_path / f"{i}.png") for i in (0, 1, 2, 1)] + ["-"]
    for answer, i in zip(answers, (0, 1, 2, 1, 3), strict=True):
        assert [p["class"] for p in answer["predictions"]] == list(np.argsort(-logits[i])[:2])
        assert answer["predictions"][0]["label"] == str(logits[i].argmax())
    assert command("predict", finished / "export", tmp_path / "0.png") == 0
    assert f"0.png: {logits[0].argmax()} " in capsys.readouterr().out


def test_predict_names_what_it_cannot_read(finished, tmp_path, capsys):
    (tmp_path / "good.png").write_bytes(encode(GOOD))
    (tmp_path / "zbad.png").write_bytes(b"nothing")
    assert command("predict", finished / "export", tmp_path) == 1
    said = capsys.readouterr()
    assert "good.png: " in said.out
    assert f"{tmp_path / 'zbad.png'} is not an image" in said.err and "Traceback" not in said.err
    assert command("predict", finished / "export", tmp_path / "absent.png") == 1
    assert "There is no image" in capsys.readouterr().err
    assert command("predict", tmp_path, tmp_path / "good.png") == 2
    assert "has no exported model" in capsys.readouterr().err
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nothing")
    assert command("predict", tmp_path, tmp_path / "good.png") == 2
    said = capsys.readouterr().err
    assert f"The export in {tmp_path / '1'} cannot be loaded" in said and "Traceback" not in said
    assert command("predict", finished / "export", tmp_path / "good.png", "--top", "0") == 2
    assert "top must be positive. Received: top=0" in capsys.readouterr().err


def test_the_model_card_says_what_was_trained(finished, expected, tmp_path, monkeypatch, capsys):
    version = latest_version(finished / "export")
    card = (version / "MODEL_CARD.md").read_text()
    last = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()][-1]
    assert f"| test error | {last['error']:.2%}, top-5 error {last['top5_error']:.2%}, n = 360 images |" in card
    assert "60 steps of 32 images" in card and "| seed | `0` |" in card
    assert "| checkpoint | the last step: no image chose it |" in card
    model = keras.saving.load_model(finished / "model.keras")
    trained = sum(int(np.prod(each.shape)) for each in model.trainable_variables)
    assert f"| weights | {trained:,} trained, {model.count_params():,} in all |" in card
    assert "| input | 32 x 32 x 3 (height, width, channels) |" in card
    assert "Alpaydin" in card and "| licence of the data | CC BY 4.0 |" in card
    for part in ("`serving_default`", "`serve_uint8`", "`serve_bytes`", "## Intended use and limits"):
        assert part in card
    assert (version / "labels.txt").read_text().splitlines() == [str(i) for i in range(10)]

    monkeypatch.chdir(version)  # its Python answers as the network does
    (tmp_path / "digit.png").write_bytes(encode(expected[0][0]))
    code = re.search(r"```python\n(.*?)```", card, re.S)[1].replace('"IMAGE"', repr(str(tmp_path / "digit.png")))
    capsys.readouterr()
    exec(compile(code, "card", "exec"), {})
    assert f"b'{expected[1][0].argmax()}'" in capsys.readouterr().out.partition("]")[0]


def test_the_model_card_says_what_chose_the_checkpoint(finished):
    def card(recipe, checkpoint, step, lines):
        session = {"versions": {}, "precision": "float32", "cpu": "a CPU", "commit": "abc", "gpus": []}
        return model_card(
            recipe, step, checkpoint, lines, session, [f"thing|{i}" for i in range(100)], (5, 6), "call it"
        )

    tests = [{"step": step, "split": "test", "error": 0.25, "top5_error": 0.1, "images": 400} for step in (20, 40)]
    best = card(TINY, "best", 40, tests)
    assert "the lowest error of 2 tests on the test images, which makes the test error look too low" in best
    assert "| test error | not measured at this step |" in card(TINY, "best", 30, tests)
    assert "100 classes: thing\\|0, thing\\|1" in best and "(all are in the file of labels beside this card)" in best
    held = TINY.replace(holdout=0.1, patience=3)
    lines = [line | {"split": "holdout"} for line in tests]
    best = card(held, "best", 20, lines)
    assert "the lowest error of 2 tests on the held-out images |" in best
    assert "| error on held-out images | 25.00%, top-5 error 10.00%, n = 400 images |" in best
    ended = [*lines, tests[1] | {"planned": held.run.steps}]
    assert "the last step: the error on the held-out images had stopped falling" in card(held, "latest", 40, ended)
    assert "of a run that has made 40 of 60 steps: no image chose it" in card(held, "latest", 40, lines)
    assert "the last step: no image chose it" in card(TINY, "latest", 60, lines)
    unknown = card(TINY.replace(dataset="flowers/a|b"), "latest", 40, tests)
    assert r"| data | flowers/a\|b, 100 classes: thing\|0, thing\|1," in unknown and r'`"flowers/a\|b"`' in unknown
    assert "| source of the data | not known to this program |" in unknown
    assert "| licence of the data | none is stated" in card(TINY.replace(dataset="cifar10"), "latest", 40, tests)


def test_a_version_is_replaced_whole_and_the_newest_is_used(tmp_path):
    model = TINY.build_model()
    for version in (9, 10, 10):
        assert export_savedmodel(model, range(10), tmp_path, version) == tmp_path / str(version)
    assert latest_version(tmp_path) == tmp_path / "10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9"]
    assert len(list(predict_export(tmp_path, [], 5))) == 0


def test_an_export_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        export_savedmodel(TINY.build_model(), range(10), tmp_path / "file", 1)
    with pytest.raises(BadInput, match="10 classes"):
        export_savedmodel(TINY.build_model(), range(9), tmp_path, 1)


def test_a_keras_file_from_a_stranger_runs_no_code(tmp_path):
    marker = str(tmp_path / "ran")
    layer = keras.layers.Lambda(lambda x: [x, open(marker, "w")][0])  # noqa: SIM115
    keras.Sequential([keras.Input((2,)), layer]).save(tmp_path / "crafted.keras")
    os.remove(marker)  # the crafting ran it
    with pytest.raises(ValueError, match="unsafe"):
        keras.saving.load_model(tmp_path / "crafted.keras")
    assert not os.path.exists(marker)
