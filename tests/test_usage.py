"""The helps of all commands, `--version` and `doctor`: what a user reads first."""

import errno
import functools
import importlib.metadata
import os
import re
import shlex
import tempfile

import pytest
import tyro
from privileges import without_privileges
from test_start import run

from allconv_resnet import cli, commands, doctor, recipes, usage
from allconv_resnet.console import guarded
from allconv_resnet.job import parse_job
from allconv_resnet.serving.options import ServeGroups, ServeOptions

HELPS = [["train"], *([name] for name in commands.COMMANDS), *(["theory", name] for name in cli.THEORY)]
UGLY = (
    "{None}",
    "NONE|",
    "|NONE",
    "STR",
    "NoneType",
    "default: None",
    "default: )",
    "options.",
    "recipe.",
    "typing.",
    "Literal",
)


def shown(arguments, capsys, monkeypatch, columns=100):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    said = capsys.readouterr()
    assert stop.value.code == 0 and said.err == ""
    return said.out


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_every_help_says_what_for_and_has_an_example(arguments, capsys, monkeypatch):
    text = shown(arguments, capsys, monkeypatch)
    assert f"Example: allconv-resnet {' '.join(arguments)}" in text
    for spelling in UGLY:
        assert spelling not in text, spelling
    assert (re.search(r"^usage: allconv-resnet", text, re.M) and "─ options ─" in text) or "[-h]" in text
    narrow = shown(arguments, capsys, monkeypatch, columns=40)
    words = (f"Example: {text.split('Example: ')[1].splitlines()[0]}", "usage: ")  # these are for one line each
    assert max(len(line) for line in narrow.splitlines() if not line.startswith(words)) <= 40


def test_the_overview_has_every_command_with_its_sentence(capsys, monkeypatch):
    text = shown([], capsys, monkeypatch)
    for name, command in commands.COMMANDS.items():
        first = usage.paragraph(command.__doc__).split("\n")[0]
        assert re.search(rf"^  {name} +{re.escape(first[:30])}", text, re.M)
    for name in ("train", "theory"):
        assert re.search(rf"^  {name} ", text, re.M)
    experiments = shown(["theory"], capsys, monkeypatch)
    assert all(re.search(rf"^  {name} +{re.escape(what[:30])}", experiments, re.M) for name, what in cli.THEORY.items())
    assert max(map(len, shown([], capsys, monkeypatch, columns=60).splitlines())) <= 60


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_examples_of_the_helps_are_command_lines(name):
    command = commands.COMMANDS[name]
    program, given, *arguments = shlex.split(commands.EXAMPLES[command])
    assert (program, given) == ("allconv-resnet", name)
    parsed = functools.wraps(command)(lambda **values: values)
    config = (tyro.conf.DisallowNone, tyro.conf.OmitArgPrefixes)
    assert isinstance(tyro.cli(parsed, args=arguments, config=config, registry=usage.REGISTRY), dict)


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_example_of_training_is_a_command_line(name, capsys):
    with pytest.raises(SystemExit):
        parse_job((name,), ["--help"], "train.py")
    example = re.search(r"^Example: python train.py (.*)$", capsys.readouterr().out, re.M)[1]
    assert parse_job((name,), shlex.split(example), "train.py").recipe == recipes.RECIPES[name].replace(steps=1000)


def test_options_of_the_server_are_in_groups(capsys, monkeypatch):
    text = shown(["serve"], capsys, monkeypatch)
    for group in ("models", "address", "access", "computing", "limits"):
        assert f"{group} options" in text
    assert ServeGroups().options() == ServeOptions()


def test_helps_do_without_keras_and_what_takes_long_to_import():
    program = f"""
import sys
from allconv_resnet import cli
for arguments in {[[], *HELPS]}:
    try:
        cli.main([*arguments, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
print(sorted(set(sys.modules) & {{"keras", "tensorflow", "jax", "matplotlib", "sklearn", "starlette"}}))
"""
    assert run("-c", program).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("word", ["none", "None"])
def test_none_is_a_value_of_the_options_that_can_be_without_one(word):
    job = parse_job(("cifar10",), ["--shortcut", word, "--clip-norm", word, "--patience", word])
    assert job.recipe == recipes.CIFAR10.replace(shortcut=None)


@pytest.mark.parametrize("program", [[], ["theory"]], ids=["allconv-resnet", "theory"])
def test_an_unknown_command_is_one_sentence_and_none_is_the_overview(program, capsys):
    for arguments, said in ((["trian"], "Received: trian\n"), ([], "")):
        with pytest.raises(SystemExit) as stop:
            cli.main([*program, *arguments])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.endswith(said)
        assert error.startswith("error: The " if said else f"usage: {' '.join(['allconv-resnet', *program])} ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", ""],
        ["evaluate", "runs/digits", "--details", ""],
        ["plot", "runs/digits", ""],
        ["report", ""],
        ["theory", "linear", "--output-dir", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_directory(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and "a path must not be empty" in " ".join(capsys.readouterr().err.split())


def test_a_home_directory_may_be_part_of_a_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        cli.main(["plot", "cifar10-wide", "--output=~/wide.svg"])
    assert capsys.readouterr().out == f"{tmp_path / 'wide.svg'}\n" and (tmp_path / "wide.svg").is_file()


@pytest.mark.parametrize("arguments", [["save-arrays", "digits"], ["plot", "cifar10-wide", "--output"]], ids=" ".join)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("allconv_resnet.data.source.load_data", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, str(tmp_path / "file" / "a.npz")])
    assert stop.value.code == 2 and "must be a file that can be written. Received: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EACCES, 2), (errno.ENAMETOOLONG, 2), (errno.ENOSPC, 1), (errno.ENOENT, None)]
)
def test_errors_of_the_file_system_are_one_sentence_and_bugs_are_not(number, status, capsys):
    def run():
        raise OSError(number, os.strerror(number), "runs/a")

    if status is None:
        with pytest.raises(FileNotFoundError):
            guarded(run)
    else:
        assert guarded(run) == status
        assert capsys.readouterr().err == f"error: runs/a: {os.strerror(number)}\n"


@pytest.mark.parametrize(
    "arguments", [["plot", "DIR"], ["report", "DIR"], ["evaluate", "DIR"], ["predict", "DIR", "x"]]
)
def test_directories_that_may_not_be_read_are_one_sentence(arguments, capsys):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own directories are closed to others
        os.chmod(folder, 0o755)
        os.mkdir(f"{folder}/run", 0)
        with without_privileges(), pytest.raises(SystemExit) as stop:
            cli.main([f"{folder}/run" if argument == "DIR" else argument for argument in arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "Permission denied" in said and len(said.splitlines()) == 1


def test_the_version():
    done = run("allconv_resnet_command.py", "--version")
    assert done.stdout == f"allconv_resnet {importlib.metadata.version('allconv_resnet')}\n" and done.stderr == ""


def test_doctor_fits_on_a_screen_and_says_what_there_is(tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    done = run("allconv_resnet_command.py", "doctor", TFDS_DATA_DIR=str(tmp_path), CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0 and done.stderr == ""
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert len(lines) == len(done.stdout.splitlines()) <= 24
    assert f"tensorflow {importlib.metadata.version('tensorflow')}" in lines["packages"]
    assert lines["Keras"] == "on tensorflow, float32, channels_last"
    assert re.match("auto is (float32|bfloat16), since the processor has ", lines["precision"])
    assert lines["GPUs"] == "none that the backend finds" and lines["data"] == f"{tmp_path} has mnist"
    assert "cifar10-fast" in lines["networks"] and f"TFDS_DATA_DIR={tmp_path}" in lines["variables"]
    assert lines["[serve]"] == "installed (for allconv-resnet serve)"


@pytest.mark.parametrize(
    "directory, said",
    [
        ("~nobody-of-this-name/data", "TFDS_DATA_DIR must name a home directory that exists. Received: "),
        ("gs://bucket/data", "gs://bucket/data (a bucket, which was not looked into)"),
        ("/nowhere/at/all", "/nowhere/at/all is no directory (TFDS_DATA_DIR and --data-dir name another directory)"),
    ],
    ids=["home", "bucket", "nowhere"],
)
def test_doctor_says_what_is_wrong_with_the_directory_of_the_data(monkeypatch, directory, said):
    monkeypatch.setenv("TFDS_DATA_DIR", directory)
    assert re.search(rf"^data +{re.escape(said)}", doctor.report()[0], re.M)


def test_doctor_where_keras_cannot_be_imported():
    done = run("allconv_resnet_command.py", "doctor", KERAS_BACKEND="nonsense")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"^Keras +cannot be used: .*nonsense", done.stdout, re.M)


def test_doctor_where_jax_finds_no_devices():
    done = run("allconv_resnet_command.py", "doctor", KERAS_BACKEND="jax", JAX_PLATFORMS="cuda")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot be used: JAX finds no devices (" in done.stdout and "JAX_PLATFORMS=cuda" in done.stdout


def test_missing_packages_of_an_extra():
    assert doctor.missing("onnx") == [] == doctor.missing("no such extra")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        doctor.missing("onnx", "no-such-package")
    lacking = doctor.missing("gpu")  # through tensorflow[and-cuda]
    cuda = [name for name in lacking if name.startswith("nvidia-")]
    assert lacking == cuda and bool(cuda) == (not list(importlib.metadata.distributions(name="nvidia-cudnn-cu12")))
