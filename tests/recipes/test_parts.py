"""Recipes in parts: each checks itself, options belong to the kind that has them, and configurations survive JSON."""

import json
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest

from allconv_resnet import blocks, cli, recipes
from allconv_resnet.data import augment
from allconv_resnet.errors import BadInput
from allconv_resnet.job import parse_job
from allconv_resnet.part import Count, NotNegative, Positive, as_lists, part
from allconv_resnet.recipes.migrate import nest_fields
from allconv_resnet.recipes.parts import KINDS
from allconv_resnet.training import run_directory

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
NAMES = ("cifar10", "digits", "imagenet-tiny")


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_survive_json(recipe):
    assert recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("path", sorted(RESULTS.glob("**/config.json")), ids=lambda path: path.parent.as_posix()[-40:])
def test_the_configuration_of_every_run_under_results_loads(path):
    recipe, values = recipes.Recipe.read(path), json.loads(path.read_text())
    assert recipe.name == values["name"]
    if "steps" not in values:
        return  # of this version
    flat = recipe.flat()
    names = set(values) & set(flat) - {"network"}
    assert {"steps", "batch_size", "learning_rate", "padding" if recipe.data.kind == "arrays" else "flip"} <= names
    differ = {name for name in names if as_lists(flat[name]) != values[name]}
    if recipe.network.kind != "allconv_resnet":
        differ -= {"normalization", "depth"}
    assert not differ


def test_the_fields_beside_a_part_are_its_own():
    changed = recipes.CIFAR10.replace(optimizer=recipes.Muon(), momentum=0.8, kernel_norm=1.4)
    assert changed.optimizer == recipes.Muon(momentum=0.8, kernel_norm=1.4)
    named = recipes.CIFAR10.replace(optimizer="muon", momentum=0.8, kernel_norm=1.4)
    assert (named.optimizer.momentum, named.optimizer.kernel_norm) == (0.8, 1.4)
    with pytest.raises(BadInput, match="kernel_norm"):
        recipes.CIFAR10.replace(kernel_norm=1.4)


def test_mirroring_in_every_other_epoch_needs_mirroring():
    with pytest.raises(BadInput, match="alternate needs flip"):
        recipes.CIFAR10.replace(alternate=True, flip=False)


def test_a_config_of_the_old_version_is_a_recipe(tmp_path):
    for name, centre in (("cifar10-250", 1.0), ("imagenet-30", 0.875)):
        path = RESULTS / name / "config.json"
        job = parse_job(tuple(recipes.RECIPES), ["--recipe", str(path), "--run-dir", str(tmp_path)])
        assert job.recipe.data.centre == centre


def test_a_run_of_the_old_version_is_migrated(tmp_path):
    old = {"name": "x", "dataset": "cifar10", "num_classes": 10, "steps": 7, "optimizer": "muon", "linear_decay": True,
           "boundaries": [], "learning_rate": 0.02, "network": "resnet20_plain", "cutout": 3}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert run_directory.read_recipe(tmp_path).data.centre is None
    sessions = [{"centre": 0.5}, {"centre": 1.0}, {"cpu": "x"}]
    (tmp_path / "environment.json").write_text(json.dumps({"sessions": sessions}))
    recipe = run_directory.read_recipe(tmp_path)
    assert recipe.data.centre == 1.0 and recipe.run.steps == 7 and recipe.data.erasing.cutout == 3
    assert isinstance(recipe.optimizer, recipes.Muon) and isinstance(recipe.schedule, recipes.Linear)
    assert recipe.network == recipes.ResNet(normalization=None)
    assert recipes.Recipe.from_dict(nest_fields({**old, "decay_epochs": 2, "epoch_images": 500, "linear_decay": False,
                                            "decay_factor": 0.9})).schedule == recipes.Epochs(
        learning_rate=0.02, decay_factor=0.9, decay_epochs=2, epoch_images=500)  # fmt: skip
    with pytest.raises(BadInput, match="no field stepz"):
        nest_fields({**old, "stepz": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"steps": "many"}}, "steps must be a number. Received: steps='many'"),
        ({"run": {"steps": True}}, "steps must be a number"),
        ({"optimizer": {"clip_norm": "1.0"}}, "clip_norm must be a number"),
        ({"optimizer": {"clip_norm": True}}, "clip_norm must be a number"),
        ({"run": {"steps": 0}}, "steps must be greater than or equal to 1. Received: steps=0"),
        ({"run": {"stepz": 3}}, "run run has no field stepz"),
        ({"network": {"kind": "vgg"}}, "network must have a kind among allconv_resnet"),
        ({"optimizer": {"kind": "muon", "learning_rate": 1}}, "optimizer muon has no field learning_rate"),
        ({"seed": -1}, "seed must be greater than or equal to 0"),
        ({"seed": 1e9 + 0.5}, "seed must be a valid integer"),
        ({"precision": "float8"}, "precision must be"),
        ({"more": 1}, "Recipe has no field more"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_configuration_that_fits_no_recipe_ends_in_one_sentence(change, message, tmp_path, capsys):
    content = recipes.DIGITS.to_dict()
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) and "kind" not in value else value
    (tmp_path / "some.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        cli.train_command(NAMES, ["--recipe", str(tmp_path / "some.json"), "--run-dir", str(tmp_path / "run")])
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2 and message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_recipe_file_is_where_the_command_line_starts(tmp_path):
    recipe = recipes.CIFAR10_FAST.replace(steps=7)
    (tmp_path / "config.json").write_text(json.dumps(recipe.to_dict()))
    job = cli.parse_job(NAMES, ["--recipe", str(tmp_path / "config.json"), "--cutout", "5"])
    assert job.recipe == recipe.replace(cutout=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smallest-crop", "0.5"], "--smallest-crop is an option of --data records. This recipe has --data arrays"),
        (["--padding=2", "--recipe", "imagenet-tiny"], "--padding=2 is an option of --data arrays"),
        (["--no-whitened-stem", "--network", "resnet20"], "is an option of --network allconv_resnet"),
        (["--boundaries", "3", "--schedule", "linear"], "--boundaries is an option of --schedule steps"),
        (["--growth", "3"], "--growth is an option of --network densenet_bc"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_of_a_kind_that_was_not_chosen_are_refused(options, message):
    with pytest.raises(BadInput) as refusal:
        cli.parse_job(NAMES, options)
    assert message in str(refusal.value)


def test_another_kind_keeps_what_both_kinds_have():
    job = cli.parse_job(NAMES, ["--recipe", "digits", "--network", "resnet20"])
    assert job.recipe.network == recipes.ResNet()
    job = cli.parse_job(NAMES, ["--recipe", "digits", "--schedule", "linear", "--optimizer", "muon"])
    assert job.recipe.schedule == recipes.Linear(learning_rate=recipes.DIGITS.schedule.learning_rate)
    assert job.recipe.optimizer == recipes.Muon(clip_norm=1.0)
    resnet32 = cli.parse_job(NAMES, ["--network", "resnet20", "--depth", "32"]).recipe
    assert resnet32.build_model().count_params() > recipes.RESNET20.build_model().count_params()


def test_the_help_groups_the_options_by_part(capsys):
    with pytest.raises(SystemExit):
        cli.parse_job(NAMES, ["--recipe", "digits", "--help"])
    said = capsys.readouterr().out
    for group in ("data", "network", "optimizer", "schedule", "run"):
        assert f" {group} options" in said
    assert said.index(" network options") < said.index("--stem") < said.index(" optimizer options")


# CONTRIBUTING.md says: a block type, an optimizer, a schedule and an augmentation are one class and one line each.


def test_a_new_block_type_is_a_class_and_a_line(monkeypatch):
    @keras.saving.register_keras_serializable(package="tests")
    class HalvedBlock(blocks.ResidualBlock):
        def call(self, x, training=None):
            return 0.5 * super().call(x, training=training)

    monkeypatch.setitem(blocks.BLOCKS, "halved", HalvedBlock)
    recipe = cli.parse_job(NAMES, ["--recipe", "digits", "--block", "halved"]).recipe
    model = recipe.build_model()
    assert isinstance(model.get_layer("stage1_block1"), HalvedBlock)


def test_a_new_optimizer_is_a_class_and_a_line(monkeypatch):
    from allconv_resnet.recipes.parts.optimizer import OPTIMIZERS, Optimizer

    @part
    class AdamW(Optimizer):
        beta_2: Positive = 0.999
        weight_decay: NotNegative = 0.0
        kind: ClassVar = "adamw"

        def optimizer_class(self):
            return keras.optimizers.AdamW

        def arguments(self):
            return {"beta_1": self.momentum, "beta_2": self.beta_2, "weight_decay": self.weight_decay}

    monkeypatch.setitem(OPTIMIZERS, "adamw", AdamW())
    recipe = recipes.DIGITS.replace(optimizer="adamw", beta_2=0.9)
    optimizer = recipe.build_optimizer()
    assert isinstance(optimizer, keras.optimizers.AdamW) and optimizer.beta_2 == 0.9


def test_a_new_schedule_is_a_class_and_a_line(monkeypatch, tmp_path):
    from allconv_resnet.recipes.parts.schedule import SCHEDULES, Schedule
    from allconv_resnet.training.loop import train

    @part
    class Cosine(Schedule):
        cycle: Count = 10
        kind: ClassVar = "cosine"

        def without_warmup(self, run):
            return keras.optimizers.schedules.CosineDecay(self.learning_rate, self.cycle)

    monkeypatch.setitem(SCHEDULES, "cosine", Cosine())
    recipe = recipes.DIGITS.replace(schedule="cosine", cycle=4, steps=3, log_every=1, batch_size=8)
    assert train(recipe, tmp_path / "run") is None
    rates = [line["learning_rate"] for line in run_directory.read_metrics(tmp_path / "run") if line["split"] == "train"]
    np.testing.assert_allclose(rates, 0.025 * (1 + np.cos(np.pi * np.arange(3) / 4)), rtol=1e-5)


def test_a_new_augmentation_is_a_class_and_a_line():
    from allconv_resnet.data import pipeline
    from allconv_resnet.recipes.parts.data import Arrays

    @part
    class Invert:
        invert: bool = True

        def draw(self, random, batch):
            return ()

        def apply(self, images):
            return 255 - images if self.invert else images

    @part
    class Inverted(Arrays):
        inversion: Invert = Invert()

        def augmentations(self):
            return (*super().augmentations(), self.inversion)

    images, labels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8), np.arange(8)
    plain = recipes.DIGITS.replace(data=Inverted(crop=augment.CropAndFlip(0, False)), batch_size=8)
    batches = [
        next(iter(pipeline.training_batches(images, labels, r)))[0] for r in (plain, plain.replace(invert=False))
    ]
    np.testing.assert_allclose(batches[0], -batches[1], atol=1e-4)


def test_the_tables_name_their_kinds():
    for table in KINDS.values():
        assert all(table[value.kind].kind == value.kind for value in table.values())


def test_another_optimizer_has_its_own_weight_decay():
    """Coupled and decoupled weight decay have the same name and another size."""
    muon = recipes.CIFAR10.replace(optimizer="muon").optimizer
    assert (muon.weight_decay, muon.nesterov) == (0.1, True) and muon.momentum == recipes.CIFAR10.optimizer.momentum
    assert recipes.CIFAR10.replace(optimizer="muon", weight_decay=0.2).optimizer.weight_decay == 0.2


def test_the_scalar_of_skip_init_may_begin_at_zero():
    assert recipes.CIFAR10.replace(block="scaled", gain=0.0).network.gain == 0


@pytest.mark.parametrize("name", ["été", "_mine", "-x", "a/b c", "名"])
def test_a_recipe_of_any_name_builds_its_network(name):
    model = recipes.DIGITS.replace(name=name).build_model()
    assert model(np.zeros((1, 32, 32, 3), "float32")).shape == (1, 10)
