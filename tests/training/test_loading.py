"""Trained networks are loaded from wherever they are, and a run is packed into one file that comes with the package."""

import json
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from training.runs import SMALL, lines

import allconv_resnet as acr
from allconv_resnet import cli, pretrained
from allconv_resnet.errors import BadInput
from allconv_resnet.training import packing
from allconv_resnet.training.exporting import export_at_the_end, export_run
from allconv_resnet.training.loop import train
from allconv_resnet.training.packing import pack_run
from allconv_resnet.transfer import arrays_by_name

DIGITS = tuple("0123456789")
RECIPE = SMALL.replace(
    stem=(9, 3, 2, 1), whitened_stem=True, stages=((1, 24, 2), (1, 32, 2)), block="scaled", initialization="he",
    mirror_average=True, batch_size=32, steps=40, boundaries=(30,), evaluate_every=40, checkpoint_every=40, seed=3,
)  # fmt: skip


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(RECIPE, run_dir) is None
    return run_dir


@pytest.fixture(scope="module")
def pictures():
    images, _ = acr.load_data("digits").arrays("test")
    return images[:16], np.asarray(acr.standardize(images[:16]))


@pytest.fixture
def packed(run, tmp_path, monkeypatch):
    """The name of a network that comes with the package, for the time of a test."""
    monkeypatch.setattr(pretrained, "HERE", tmp_path / "networks")
    pack_run(run, "tiny-digits")
    return "tiny-digits"


def test_a_run_and_its_export_and_its_file_are_the_same_network(run, pictures, tmp_path):
    export_run(run, output_dir=tmp_path / "export")
    expected = keras.saving.load_model(run / "model.keras").predict(pictures[1], verbose=0)
    for source in (run, str(run), run / "model.keras", tmp_path / "export", tmp_path / "export" / "40"):
        model = acr.load(source)
        assert model.label_names == DIGITS, source
        np.testing.assert_allclose(model.predict(pictures[1], verbose=0), expected, rtol=1e-5, atol=1e-5)
        assert len(model.trainable_weights) == 6  # it can be trained further; the stem and the projection are fixed


@pytest.mark.slow
def test_a_file_of_keras_is_loaded_where_nothing_was_imported_before(run, tmp_path):
    program = f"import allconv_resnet as acr; print(acr.load({str(run / 'model.keras')!r}).label_names)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(DIGITS), done.stderr
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "own.keras")
    assert acr.load(tmp_path / "own.keras").label_names is None


def test_what_is_no_network_is_refused_in_a_sentence(run, tmp_path):
    (tmp_path / "damaged.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    old = export_run(run, output_dir=tmp_path / "old")
    (old / "assets.extra" / "network.json").unlink()
    for source, message in (
        ("nowhere", "There is no file, directory or network of the package called nowhere"),
        ("no/where", "A network must be a run directory, .*Received: source='no/where'"),
        (tmp_path, "A network must be a run directory"),
        (tmp_path / "old.h5", "A network is read from a .keras file, and not from HDF5"),
        (tmp_path / "damaged.keras", "cannot be read"),
        (old, "The network of the export .* cannot be read: .*writes it again"),
    ):
        with pytest.raises(BadInput, match=message):
            acr.load(source)
    with pytest.raises(BadInput, match=r"saved as a .keras file, and not as HDF5. Received: filepath='x.h5'"):
        acr.load(run).save("x.h5")


def test_a_packed_network_is_the_one_of_the_run_in_half_precision(run, packed, pictures):
    folder = pretrained.HERE / packed
    assert pretrained.names() == [packed]
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "weights.npz: OK\n"
    with np.load(folder / "weights.npz", allow_pickle=False) as file:
        assert {file[name].dtype for name in file.files} == {np.dtype("float16")}
    ours, theirs = (acr.load(each) for each in (packed, run))
    assert ours.label_names == DIGITS
    for name, value in arrays_by_name(theirs).items():
        np.testing.assert_array_equal(arrays_by_name(ours)[name], value.astype("float16"), err_msg=name)
    a, b = (model.predict(pictures[1], verbose=0) for model in (ours, theirs))
    np.testing.assert_allclose(a, b, atol=0.02)
    card = (folder / "MODEL_CARD.md").read_text()
    error = lines(run, "test")[-1]["error"]
    assert f"| test error | {error:.2%} of 360 test images, in float32" in card and "(n = 1)" in card
    assert str(run.parent) not in "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".npz")
    assert f"allconv-resnet predict {packed} IMAGE" in card
    assert "Apache-2.0" in card and pretrained.checksum((folder / "weights.npz").read_bytes()) in card


def test_kernels_of_a_large_network_are_packed_in_eight_bits(run, pictures, tmp_path, monkeypatch, capsys):
    size = len((pack_run(run, "half", tmp_path) / "weights.npz").read_bytes())
    monkeypatch.setattr(packing, "LARGEST", size - 1)
    folder = pack_run(run, "small", tmp_path)
    assert (folder / "weights.npz").stat().st_size < 0.7 * size
    card = (folder / "MODEL_CARD.md").read_text()
    assert "kernels in int8" in card
    assert "In the directory of this card:" in card and "allconv-resnet predict . IMAGE" in card
    ours, theirs = (acr.load(each) for each in (folder, run))
    for name, value in arrays_by_name(theirs).items():
        step = np.abs(value).max(axis=tuple(range(value.ndim - 1))) / 127 if value.ndim > 1 else np.abs(value) * 2**-10
        assert np.all(np.abs(arrays_by_name(ours)[name] - value) <= 0.51 * step + 1e-7), name
    a, b = (model.predict(pictures[1], verbose=0) for model in (ours, theirs))
    assert np.std(a - b) <= 0.03 * np.std(b)
    monkeypatch.setattr(packing, "LARGEST", 1000)
    assert command("pack", run, "large", "--output-dir", tmp_path) == 2
    assert "must have at most 1,000 bytes" in capsys.readouterr().err and not (tmp_path / "large").exists()


def test_channels_of_zeros_are_packed_in_eight_bits():
    arrays = {"a/kernel": np.zeros((3, 3, 2, 4), np.float32), "b": np.ones(3, np.float32)}
    decoded = pretrained.decode(pretrained.encode(arrays, 8))
    assert decoded.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(decoded[name], value)
    with pytest.raises(BadInput, match="finite in float16"):
        pretrained.encode({"a": np.array([1e5], np.float32)}, 8)
    with pytest.raises(KeyError):
        pretrained.decode({"a/kernel": np.ones((2, 2), np.int8)})


def test_the_filed_error_is_reproduced_from_the_file(packed, run, capsys):
    assert command("evaluate", packed) == 0
    measured = float(capsys.readouterr().out.split("test error ")[1].split("%")[0]) / 100
    assert measured == pytest.approx(lines(run, "test")[-1]["error"], abs=2 / 360)
    assert command("evaluate", packed, "--checkpoint", "best") == 2
    assert "has the weights of one step alone" in capsys.readouterr().err


def test_a_packed_network_predicts_image_files(packed, pictures, tmp_path, capsys):
    for number, image in enumerate(pictures[0][:3]):
        keras.utils.save_img(tmp_path / f"{number}.png", image, scale=False)
    assert command("predict", packed, tmp_path, "--json-lines") == 0
    answers = [json.loads(line)["predictions"][0]["label"] for line in capsys.readouterr().out.splitlines()]
    logits = acr.load(packed).predict(pictures[1][:3], verbose=0)
    assert answers == [DIGITS[c] for c in logits.argmax(1)]


def test_a_run_begins_with_a_packed_network(packed, tmp_path):
    recipe = RECIPE.replace(initialize_from=packed, steps=1, learning_rate=1e-12, boundaries=(), evaluate_every=1)
    assert train(recipe, tmp_path / "run") is None
    ours, theirs = (arrays_by_name(acr.load(each)) for each in (tmp_path / "run", packed))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-6, err_msg=name)


def test_weights_are_an_argument_as_in_keras(packed, pictures, tmp_path):
    expected = acr.load(packed).predict(pictures[1], verbose=0)
    for model in (acr.AllConvResNet(weights=packed), acr.cifar_resnet(weights=packed)):
        np.testing.assert_allclose(model.predict(pictures[1], verbose=0), expected, rtol=1e-5, atol=1e-5)
        assert "weights" not in model.get_config()
        assert acr.AllConvResNet.from_config(model.get_config()).count_params() == model.count_params()
    other = acr.cifar_resnet(4, weights=packed)
    assert other.output_shape == (None, 4)
    for name, value in arrays_by_name(acr.load(packed)).items():
        if name != "projection/kernel":
            np.testing.assert_array_equal(arrays_by_name(other)[name], value, err_msg=name)
    model.save_weights(tmp_path / "own.weights.h5")
    arguments = {key: value for key, value in model.get_config().items() if key != "frozen"}
    again = acr.AllConvResNet(**{**arguments, "dtype": None, "seed": 9, "weights": tmp_path / "own.weights.h5"})
    np.testing.assert_allclose(again.predict(pictures[1], verbose=0), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(BadInput, match=r"weights must fit the network, but for stem/kernel its shape is"):
        acr.cifar_resnet(10, weights=packed, stem=(8, 3, 1, 1))
    with pytest.raises(BadInput, match=r"for stage2_block1/[a-z0-9/]+ there is no place in it"):
        acr.cifar_resnet(10, weights=packed, stages=((1, 24, 2),))
    with pytest.raises(BadInput, match=r"cannot be loaded into the network"):
        acr.AllConvResNet(stages=((1, 16, 1),), weights=tmp_path / "own.weights.h5")
    with pytest.raises(BadInput, match=r"networks of the package are: tiny-digits. Received: weights='imagenet'"):
        acr.cifar_resnet(weights="imagenet")


def test_damaged_or_hostile_weights_are_refused(packed):
    path = pretrained.HERE / packed / "weights.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"weights\.npz cannot be read: its checksum is"):
        acr.load(packed)
    np.savez(path, **{"stem/kernel": np.array([{}], dtype=object)})  # a pickle
    (path.parent / "SHA256SUMS").write_text(f"{pretrained.checksum(path.read_bytes())}  weights.npz\n")
    with pytest.raises(BadInput, match=r"weights\.npz cannot be read: Object arrays cannot be loaded"):
        acr.load(packed)


def test_what_cannot_be_packed_is_refused(run, tmp_path, capsys):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "model.keras").unlink()
    assert command("pack", unfinished, "x", "--output-dir", tmp_path / "out") == 2
    assert "has not finished" in capsys.readouterr().err
    assert command("pack", run, "../x", "--output-dir", tmp_path / "out") == 2
    assert "must be that of a folder. Received: name='../x'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for name in ("", ".", ".."):
        assert command("pack", run, name, "--output-dir", tmp_path / "out") == 2
        assert f"must be that of a folder. Received: name={name!r}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "load_model", lambda _: pytest.fail("the work began"))
        assert command("pack", run, "mine", "--output-dir", tmp_path / "file") == 2
    assert "output_dir must be a directory that can be written to" in capsys.readouterr().err
    before = sorted(run.rglob("*"))
    assert command("pack", run, run.name, "--output-dir", run.parent) == 2  # it would replace the run itself
    assert "is not a packed network: it has .lock" in capsys.readouterr().err and sorted(run.rglob("*")) == before
    assert command("pack", run, "mine", "--output-dir", tmp_path / "out") == 0
    assert acr.load(tmp_path / "out" / "mine").label_names == DIGITS


def test_the_packed_network_of_another_run_is_not_replaced(run, tmp_path, capsys):
    folder = pack_run(run, "mine", tmp_path)
    assert pack_run(run, "mine", tmp_path) == folder
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "labels.txt").write_text("".join(f"a|{i}\n" for i in range(10)))
    assert command("pack", other, "mine", "--output-dir", tmp_path) == 2
    assert f"{folder} is a packed network of another run: choose another name" in capsys.readouterr().err
    assert acr.load(folder).label_names == DIGITS
    assert r"10 classes: a\|0, a\|1, " in (pack_run(other, "yours", tmp_path) / "MODEL_CARD.md").read_text()


def test_the_networks_of_the_package_are_whole():
    """Every network that comes with the package has its checksum, is small, and gives its classes."""
    for name in pretrained.names():
        assert (pretrained.HERE / name / "weights.npz").stat().st_size <= 10_000_000
        assert len(acr.load(name).label_names) == acr.load(name).output_shape[-1]


def test_cifar10_fast_knows_real_images(prepared):
    """The filed error is on the original images. These were re-encoded as JPEG, which costs about 3 points."""
    images, labels = acr.load_data("cifar10", prepared).arrays("test")
    logits = acr.load("cifar10-fast").predict(acr.standardize(images[:500]), verbose=0)
    assert np.mean(np.argmax(logits, axis=1) != labels[:500]) < 0.15


def test_a_name_that_is_not_there_is_refused_with_those_that_are(packed, tmp_path, monkeypatch, capsys):
    for networks in ("The networks of the package are: tiny-digits", "The package has no networks yet"):
        for arguments in (("evaluate", "cifar10-none"), ("predict", "cifar10-none", "x.png")):
            assert command(*arguments) == 2
            assert f"called cifar10-none. {networks}\n" in capsys.readouterr().err
        monkeypatch.setattr(pretrained, "HERE", tmp_path / "none")


def test_a_name_that_is_also_a_directory_is_refused(packed, run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run, tmp_path / "here" / packed)
    monkeypatch.chdir(tmp_path / "here")
    for arguments in (
        ("evaluate", packed),
        ("predict", f"./{packed}", "x.png"),
        ("export", packed, "--output-dir", "x"),
    ):
        assert command(*arguments) == 2
        assert f"is a network of the package, and {tmp_path / 'here' / packed} exists too" in capsys.readouterr().err
    assert command("evaluate", tmp_path / "here" / packed) == 0
    assert command("pack", packed, "mine", "--output-dir", tmp_path / "out") == 0  # it packs runs alone
    monkeypatch.chdir(pretrained.HERE)
    assert acr.load(packed).label_names == DIGITS


def test_damaged_networks_are_named(packed, run, tmp_path):
    content = bytearray((run / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "own.keras").write_bytes(content)
    with pytest.raises(BadInput, match=r"own\.keras cannot be read"):
        acr.load(tmp_path / "own.keras")
    (pretrained.HERE / packed / "metrics.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"metrics\.jsonl does not say of which step the weights are"):
        acr.load(packed)


def test_a_network_of_the_package_is_exported_to_another_place(packed, tmp_path, capsys):
    assert command("export", packed) == 2
    assert f"{packed} comes with the package, which is not written to" in capsys.readouterr().err
    assert command("export", packed, "--output-dir", tmp_path / "out") == 0
    assert (tmp_path / "out").is_dir() and not (pretrained.HERE / packed / "export").exists()
    assert command("export", "cifar10-none", "--output-dir", tmp_path / "out") == 2


def test_a_run_directory_with_the_name_of_a_network_is_exported(packed, run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run, tmp_path / "here" / packed)
    monkeypatch.chdir(tmp_path / "here")
    export_at_the_end(packed)
    assert f"Exported to {tmp_path / 'here' / packed / 'export' / '40'}\n" in capsys.readouterr().err


def test_a_packed_network_has_no_checkpoints_to_follow(packed, capsys):
    for network in (packed, pretrained.HERE / packed):
        assert command("evaluate", network, "--follow") == 2
        assert "has the weights of one step alone: evaluate it without --follow" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_has_the_packed_networks(run, tmp_path):
    root = pretrained.HERE.parent.parent
    place = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(root), str(place)], check=True)
    subprocess.run(["cp", "-r", str(root / "allconv_resnet"), str(root / "setup.cfg"), str(place)], check=True)
    pack_run(run, "tiny-digits", place / "allconv_resnet" / "pretrained")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([*pip, str(place)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if "pretrained/tiny-digits/" in name}
    files = ("weights.npz", "SHA256SUMS", "network.json", "config.json", "labels.txt", "MODEL_CARD.md")
    assert {f"allconv_resnet/pretrained/tiny-digits/{name}" for name in files} <= found
