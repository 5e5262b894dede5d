"""What the command lines print before their own first line, with any settings of Keras, in a process of their own."""

import json
import os
import shlex
import subprocess
import sys

import keras
import pytest

import allconv_resnet as acr
import allconv_resnet_command
from allconv_resnet import cli

ROOT = os.path.dirname(os.path.abspath(allconv_resnet_command.__file__))
UNSET = ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "KERAS_HOME", "COLUMNS")


def run(*command, **environment):
    inherited = {key: value for key, value in os.environ.items() if key not in UNSET}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "command",
    [
        ["train_cifar.py", "--help"],
        ["train_imagenet.py", "--help"],
        ["allconv_resnet_command.py", "predict", "--help"],
        ["allconv_resnet_command.py", "theory", "linear", "--help"],
    ],
    ids=" ".join,
)
def test_tensorflow_says_nothing_before_us_and_40_columns_are_enough(command):
    done = run(*command, COLUMNS="40")
    assert done.returncode == 0 and done.stderr == ""
    boxes = [line for line in done.stdout.splitlines() if line.startswith(("│", "╭", "╰"))]
    assert boxes and max(map(len, boxes)) <= 40


def test_a_mistake_is_one_sentence(tmp_path):
    done = run("allconv_resnet_command.py", "evaluate", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


@pytest.mark.slow
def test_importing_the_package_changes_no_setting():
    program = """
import os
import keras
before = dict(os.environ)
import allconv_resnet
allconv_resnet.AllConvResNet
print(before == dict(os.environ))
"""
    assert run("-c", program).stdout == "True\n"


@pytest.mark.parametrize("script", ["allconv_resnet_command.py", "train_cifar.py"])
def test_help_does_without_keras(script):
    program = f"""
import atexit, runpy, sys
sys.argv = [{script!r}, "--help"]
atexit.register(lambda: print("keras" in sys.modules))
runpy.run_path({script!r}, run_name="__main__")
"""
    assert run("-c", program).stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("imports", ["allconv_resnet, keras", "keras, allconv_resnet"])
@pytest.mark.slow
def test_saved_networks_can_be_loaded_once_the_package_is_imported(imports, tmp_path):
    path = str(tmp_path / "network.keras")
    acr.AllConvResNet(stages=[(1, 16, 1)], name="allconv_resnet").save(path)
    read = f"import {imports}; print(keras.saving.load_model({path!r}).name)"
    assert run("-c", read).stdout == "allconv_resnet\n"


def test_other_lines_on_standard_error_are_kept():
    program = """
import sys, os
from allconv_resnet_command import starting
with starting(needs_keras=False):
    os.write(2, b"I0000 00:00:1795670373.1 1 port.cc:153] oneDNN\\nW0000 00:00:17.1 1 x.cc:1] warning\\nours\\n")
print("after", file=sys.stderr)
"""
    assert run("-c", program).stderr == "ours\nafter\n"
    assert "port.cc" in run("-c", program, TF_CPP_MIN_LOG_LEVEL="0").stderr


@pytest.mark.parametrize("backend", ["torch", "nonsense"])
@pytest.mark.parametrize(
    "command", [["train_cifar.py", "--list"], ["allconv_resnet_command.py", "report"]], ids=" ".join
)
def test_a_backend_that_keras_cannot_import(backend, command):
    if backend == "torch" and __import__("importlib.util").util.find_spec("torch"):
        pytest.skip("torch is installed")
    done = run(*command, KERAS_BACKEND=backend)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"error: Keras cannot be imported with the backend {backend}: " in done.stderr


COMMANDS = [
    ["train", "--recipe", "digits", "--run-dir", "RUN"],
    *([command, "RUN"] for command in ("evaluate", "export", "plot", "report")),
    ["predict", "RUN", "examples/seven.png"],
    ["theory", "linear", "--output-dir", "RUN"],
]
REFUSED = "image_data_format channels_last and floatx float32"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("setting", ["float16", "channels_first"])
def test_settings_of_keras_that_networks_cannot_have(command, setting, tmp_path, capsys):
    change, usual = (
        (keras.config.set_floatx, "float32")
        if setting == "float16"
        else (keras.config.set_image_data_format, "channels_last")
    )
    change(setting)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(tmp_path / "run") if word == "RUN" else word for word in command])
    finally:
        change(usual)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and len(said.splitlines()) == 1 and REFUSED in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_settings_of_the_file_of_keras(tmp_path):
    settings = {"backend": "tensorflow", "floatx": "float16", "epsilon": 1e-7, "image_data_format": "channels_last"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    options = ("--recipe", "digits", "--run-dir", tmp_path / "run")
    done = run("train_cifar.py", *options, KERAS_HOME=str(tmp_path))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and REFUSED in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_program_of_a_user_can_be_as_quiet_as_the_commands():
    program = "import allconv_resnet as acr; {}; acr.AllConvResNet(stages=[(1, 16, 2)]); acr.load_data('digits')"
    quiet = run("-c", program.format("acr.quiet()"))
    assert quiet.returncode == 0 and quiet.stderr == ""
    assert "oneDNN" in run("-c", program.format("acr.quiet()"), TF_CPP_MIN_LOG_LEVEL="0").stderr
    assert "oneDNN" in run("-c", program.format("pass")).stderr  # importing the package hides nothing


@pytest.mark.slow
def test_training_and_evaluation_print_their_own_lines_alone(tmp_path):
    small = ("--stem", "4", "3", "4", "1", "--stages", "1", "8", "1", "--batch-size", "16")
    done = run("train_cifar.py", "--recipe", "digits", "--steps", "2", *small, "--run-dir", tmp_path / "run")
    assert done.returncode == 0 and done.stdout == ""
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("digits: from step 0 to 2, ") and last.startswith("Exported to ")
    assert len(done.stderr.splitlines()) == 4
    done = run("allconv_resnet_command.py", "evaluate", tmp_path / "run")
    assert done.stderr == "" and done.stdout.startswith("step 2: test loss ")


@pytest.mark.parametrize(
    ("redirection", "status"), [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&-", 0), (">/dev/full", 1)]
)
def test_standard_streams_that_are_closed_or_full(redirection, status):
    program = "import allconv_resnet_command as c, sys; sys.argv[1:] = ['--version']; c.main()"
    command = f'{shlex.quote(sys.executable)} -c "{program}" {redirection}'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert ("failed: The output cannot be written: " in done.stderr) == (status == 1)
