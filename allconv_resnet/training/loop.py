"""The training loop, which drives every engine: restore, advance to the next mark, log, test, save, finish."""

import math
import signal
import time

import numpy as np

from allconv_resnet import environment, files
from allconv_resnet.data.holdout import HOLDOUT
from allconv_resnet.data.source import load_for_recipe
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.progress import Progress, duration, say
from allconv_resnet.recipes.recipe import Recipe
from allconv_resnet.training import adaptation, engines, run_directory, run_state
from allconv_resnet.training.checkpoints import Checkpoints, steps_on_disk
from allconv_resnet.training.engines.engine import means, number_of
from allconv_resnet.training.evaluate import follow_job
from allconv_resnet.training.initialize import describe_transfer, initialize
from allconv_resnet.training.reports import Metrics, best_line, describe_evaluation, plot_curves, summary
from allconv_resnet.training.stop_signal import StopSignal
from allconv_resnet.types import StrPath

DRAW_SECONDS = 30  # shortest time between two drawings of the curves, which take as long as 50 steps on a GPU


def train(
    recipe: Recipe,
    run_dir: StrPath,
    data_dir: StrPath | None = None,
    strategy: str = "auto",
    replicas: int | None = None,
    peer_timeout: int = 300,
    minutes: float | None = None,
    overwrite: bool = False,
    given: set[str] | None = None,
) -> int | None:
    """Trains a recipe to its last step. It begins the run in a directory, or continues it.

    Args:
        recipe: `Recipe`.
        run_dir: Path of the run directory, see `run_directory`.
        data_dir: Directory of tensorflow-datasets, see `data.source.load_data`.
        strategy: See `engines.create_engine`.
        replicas: See `engines.create_engine`.
        peer_timeout: See `engines.create_engine`.
        minutes: Number or None, minutes after which the run is stopped and saved.
        overwrite: Boolean, whether to begin anew in a directory that has a run, whose files are deleted. By default the
            run is continued, and a run with results but without checkpoints is refused.
        given: Set of the names of fields that stay as they are, while others are adapted to the data, see
            `adaptation.adapt`. By default all fields stay as they are.

    Returns:
        The number of the signal that stopped the run early, or None if the run has finished.

    Raises:
        BadInput: if the arguments, the data and the run directory do not fit each other. Nothing has been written then.
        RunFailed: if the loss is not finite, the run directory can no longer be written to, or another machine cannot
            be reached.

    Example: three steps on the digits, which need no download.

    >>> import tempfile
    >>> from allconv_resnet.training.loop import train
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     stopped_by = train(acr.recipes.DIGITS.replace(steps=3), f"{directory}/run", strategy="one")
    ...     model = acr.load(f"{directory}/run")
    >>> stopped_by is None, model.label_names[:3]
    (True, ('0', '1', '2'))
    """
    run_dir, data_dir = files.expand(run_dir, "run_dir"), files.expand(data_dir, "data_dir", bucket=True)
    if engines.is_evaluator(strategy):
        follow_job(recipe, run_dir, data_dir, peer_timeout)
        return None
    engine = engines.create_engine(strategy, replicas, peer_timeout)
    if engine.serve(recipe, run_dir, overwrite):  # this process needs no data, and the chief checks the run directory
        return None
    source, adapted = None, []
    if given is not None:
        recipe, source, adapted = adaptation.adapt(recipe, given, run_dir, data_dir, overwrite)
    for sentence in adapted:
        say(sentence)
    recipe = run_state.resolve_recipe(run_dir, recipe, engine.resolve_precision(), overwrite)
    if not overwrite:
        run_state.require_within(run_dir, recipe.run.steps)
        if run_state.finished(run_dir, recipe.run):
            _restore_labels(recipe, run_dir, data_dir)
            summed = summary(run_directory.read_metrics(run_dir))
            Progress(0).say(f"{run_dir} has already finished. {summed}")
            return None
        run_state.require_no_results(run_dir, recipe.run.steps)
    with engine.job(recipe, run_dir):
        splits = dict.fromkeys((recipe.data.train_split, recipe.data.watched_split, recipe.data.test_split))
        source = load_for_recipe(recipe.data, splits, data_dir, recipe.seed, source)
        if not overwrite:
            run_state.require_same_classes(run_dir, source)
        recipe.require_memory(engine.replicas, accelerators=bool(engine.describe().get("gpus")))
        engine.build(recipe, source)
        transfer = None
        if recipe.run.start.initialize_from and (overwrite or not steps_on_disk(run_dir / "checkpoints")):
            transfer = initialize(engine.model, recipe.run.start.initialize_from)
            engine.push()
        with run_directory.RunDirectory(run_dir, engine.chief) as run, StopSignal(minutes) as stop:
            try:
                engine.require_shared(run_dir)
                if overwrite:
                    run.clear()
                    engine.require_same(overwrite=True)  # no worker reads checkpoints that the chief deletes
                return _run_loop(recipe, run, source, engine, stop, data_dir, transfer)
            except OSError as error:
                raise RunFailed(
                    f"{run_dir} can no longer be written to ({error}): the last checkpoint is kept"
                ) from error


def _restore_labels(recipe, run_dir, data_dir):
    """Writes labels.txt of a finished run again if it cannot be read."""
    try:
        run_directory.read_labels(run_dir)
    except BadInput:
        source = load_for_recipe(recipe.data, (), data_dir, recipe.seed)
        with run_directory.RunDirectory(run_dir) as run:
            run.write_recipe(run_directory.read_recipe(run_dir), source.label_names)


def _run_loop(recipe, run, source, engine, stop, data_dir, transfer):
    # 1. Restore the state of the last checkpoint.
    checkpoints = Checkpoints(run.path / "checkpoints")
    best_checkpoint = Checkpoints(run.path / "checkpoints" / "best", keep=None)
    step, damaged = checkpoints.restore(engine.load, run.shared / "checkpoints")
    step = step or 0
    engine.require_same(step=step)
    best_checkpoint.remove_later(step)  # these steps are made again
    progress = Progress(recipe.run.steps, step)
    for bad in damaged:
        progress.say(f"The checkpoint of step {bad} is damaged: going back to step {step}")
    run.write_recipe(recipe, source.label_names)
    metrics = run.closing(Metrics(run.path, step, progress.say))
    more = {"data_dir": files.absolute(data_dir)} if data_dir else {}
    if transfer:
        more["initialized"] = {"from": recipe.run.start.initialize_from, **transfer._asdict()}
        progress.say(describe_transfer(transfer, recipe.run.start.initialize_from))
    run.add_session(step, environment.describe(precision=recipe.precision, **more, **engine.describe()))
    progress.say(
        f"{recipe.name}: from step {step:,} to {recipe.run.steps:,}, {engine.model.count_params():,} parameters, "
        f"{recipe.precision}, {engine.replicas} device(s), {engine.describe()['strategy']}, in {run.shared}"
    )
    schedule = recipe.build_schedule()
    watched = HOLDOUT if recipe.data.holdout else "test"
    engine.begin(step, stop)
    clock, drawn = Clock(), time.perf_counter()

    def test(split, name, **more):
        sums = engine.test(split)
        result = {**means(sums), "images": number_of("images", sums)}
        if not math.isfinite(result["loss"]):
            raise not_finite(step, f"The {name} loss is not finite after step {step}")
        progress.say(f"step {step:,}: {describe_evaluation(result, name)}")
        metrics.add(step, name, **result, **more)

    def save():
        metrics.flush()
        checkpoints.save(step, state)
        # If the newest checkpoint is damaged, the run continues from an older one, with the best one until then.
        best_checkpoint.keep_for([*steps_on_disk(checkpoints.directory), step])

    def state():
        arrays = engine.state()
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise not_finite(step, f"The weights are not finite after step {step}")
        return arrays

    def not_finite(step, what):
        run.mark_session(not_finite_at=step)
        return RunFailed(
            f"{what}, with learning rate {float(schedule(step - 1)):g}: the last checkpoint before it is kept; a lower "
            f"learning rate, in another run directory, may help"
        )

    # 2. Advance from one mark to the next.
    while step < recipe.run.steps and not run_state.exhausted(metrics.lines, recipe.run.patience):
        before = step
        began = time.perf_counter()
        step = engine.advance(step, next_mark(recipe.run, step, engine.look_every))
        bad = engine.first_bad_step()  # waits for the device
        clock.add((step - before) * recipe.run.batch_size, time.perf_counter() - began)
        if bad:
            raise not_finite(bad, f"The loss is not finite at step {bad}")
        if engine.stopped:
            save()
            name = signal.Signals(engine.stopped).name
            progress.say(f"Stopped by {name} and saved at step {step:,}: the same command continues the run")
            return engine.stopped

        def passed(every, before=before, step=step):
            return step >= recipe.run.steps or step // every > before // every

        if progress.due() and number_of("images", sums := engine.sums()):
            errors = means(sums)
            progress.show(
                step,
                f"step {step:,}/{recipe.run.steps:,}  loss {errors['loss']:.4f}  error {errors['error']:6.2%}  "
                f"{clock.images_per_second():,.0f} images/s",
            )
        if passed(recipe.run.log_every):
            sums = engine.sums()
            skipped = number_of("skipped", sums)
            # If none of a few images could be read, they are counted in the next line. If none of all can be read,
            # `means` ends the run.
            everything = min(source.examples(recipe.data.train_split), recipe.run.steps * recipe.run.batch_size)
            if number_of("images", sums) or skipped >= everything:
                rate = float(f"{float(schedule(step - 1)):.7g}")  # float32 has seven digits
                rates = {"learning_rate": rate, **clock.rates(), **engine.rates()}
                metrics.add(step, "train", **means(sums), **({"skipped": skipped} if skipped else {}), **rates)
                engine.reset()
                clock = Clock()
        if passed(recipe.run.evaluate_every):
            test(recipe.data.watched_split, watched)
            if best_line(metrics.lines) is metrics.lines[-1]:
                best_checkpoint.save(step, engine.weights)
            if step >= recipe.run.steps or time.perf_counter() - drawn > DRAW_SECONDS:
                drawn = time.perf_counter()
                try:
                    plot_curves(run.path, recipe.name)
                except BadInput as error:  # a missing figure is no reason to end a run
                    progress.say(str(error))
        if passed(recipe.run.checkpoint_every):
            save()

    # 3. Write the trained network.
    if step < recipe.run.steps:
        progress.say(f"No lower {watched} error in {recipe.run.patience} tests: the run ends at step {step:,}")
        save()
    # The last test may be missing: with held-out images it is made here alone, and otherwise if the number of steps was
    # lowered to that of the newest checkpoint, or the log was lost. A process that was killed may have made it already.
    planned = {"planned": recipe.run.steps} if recipe.data.holdout else {}
    last = {"split": "test", "step": step, **planned}
    if not any(last.items() <= line.items() for line in metrics.lines):
        test(recipe.data.test_split, "test", **planned)
        if not recipe.data.holdout and best_line(metrics.lines) is metrics.lines[-1]:
            best_checkpoint.save(step, engine.weights)
        metrics.flush()
    engine.pull()
    run.finish(engine.model)
    run.mark_session(finished=step)
    progress.say(
        f"{run.shared} has finished, in {duration(progress.elapsed())} of this session. {summary(metrics.lines)}"
    )
    return None


def next_mark(run, step, look_every=None):
    """Returns the first step after `step` at which the loop has something to do.

    Args:
        run: Run part of a recipe.
        step: Integer, number of steps made so far.
        look_every: Integer or None, most steps between two checks of the loss.
    """
    intervals = [run.log_every, run.evaluate_every, run.checkpoint_every, *([look_every] if look_every else [])]
    return min(run.steps, *((step // every + 1) * every for every in intervals))


class Clock:
    """Measures the speed of the steps since the last log. The time of tests and checkpoints is not counted."""

    def __init__(self):
        self.images, self.seconds, self.process_began = 0, 0.0, time.process_time()

    def add(self, images, seconds):
        """Adds the number of images of some steps and their wall-clock time in seconds."""
        self.images, self.seconds = self.images + images, self.seconds + seconds

    def images_per_second(self):
        """Returns the number of images per second, or 0 if no steps were made."""
        return self.images / self.seconds if self.seconds else 0.0

    def rates(self):
        """Returns the rates for the log as a dictionary.

        `cpu_seconds` is the processor time of all threads, which includes the tests between the steps.
        """
        return {
            "images_per_second": self.images_per_second(),
            "cpu_seconds": time.process_time() - self.process_began,
        }
