"""Training: restore, then step, then small actions (log, evaluate, save) at their steps."""

import signal
import threading
import time
from contextlib import contextmanager

from allconv_resnet.data import pipeline, sources
from allconv_resnet.errors import BadInput, RunFailed
from allconv_resnet.training import environment, run_directory
from allconv_resnet.training import strategy as strategies
from allconv_resnet.training.checkpoints import Checkpoints
from allconv_resnet.training.reports import Metrics, Progress, best, describe, duration, plot, summary
from allconv_resnet.training.steps import Totals, evaluate, make_evaluate_step, make_train_step
from allconv_resnet.training.team import Team

CHECK_EVERY = 10  # steps between two looks at whether the loss is finite


def train(recipe, run_dir, data_dir=None, strategy="auto", replicas=None, peer_timeout=300):
    """Trains a recipe to its last step, beginning or continuing the run in a directory.

    Args:
        recipe: `Recipe`.
        run_dir: Path of the run directory, see `run_directory`.
        data_dir: Path of tensorflow-datasets, see `sources.load`.
        strategy: See `strategy.create`.
        replicas: See `strategy.create`.
        peer_timeout: Number, seconds to wait for the other machines of TF_CONFIG.

    Returns:
        The number of the signal that stopped the run early, or None if it has finished.

    Raises:
        BadInput: before anything is written, if something does not fit.
        RunFailed: if the loss is not finite, the run directory can no longer be written to, or another worker is gone.
    """
    recipe = run_directory.resolve(run_dir, recipe, strategies.resolve_precision("auto"))
    cluster = strategies.find_cluster(strategy)
    if cluster and cluster.asynchronous():
        from allconv_resnet.training import asynchronous  # which builds upon this file

        if replicas is not None:
            raise BadInput(f"strategy parameter-server uses all GPUs of every worker. Received: replicas={replicas}")
        return asynchronous.train(recipe, run_dir, data_dir, cluster, peer_timeout)
    strategy = strategies.create(strategy, replicas, recipe.batch_size, cluster, peer_timeout)
    team = Team(strategy, cluster)
    with team.together(run_dir):
        team.require_same(replicas=strategy.num_replicas_in_sync, **recipe.to_dict())
        data = sources.load(recipe.dataset, data_dir)
        data.check(recipe.image_size, recipe.num_classes)
        with strategy.scope():
            model = recipe.build_model(data.train_images if recipe.whitened_stem else None)
            optimizer = recipe.build_optimizer()
            optimizer.build(model.trainable_variables)
        with run_directory.RunDirectory(run_dir, team.chief) as run, StopSignal() as stop:
            team.require_shared(run_dir)
            try:
                return _train(recipe, run, data, strategy, model, optimizer, team, stop)
            except OSError as error:
                raise RunFailed(
                    f"{run_dir} can no longer be written to ({error}): the last checkpoint is kept"
                ) from error


def _train(recipe, run, data, strategy, model, optimizer, team, stop):
    # 1. The state, as it was after the last checkpoint.
    totals = Totals()
    checkpoints = Checkpoints(run.path / "checkpoints", model=model, optimizer=optimizer, totals=totals)
    best_checkpoint = Checkpoints(run.path / "checkpoints" / "best", keep=1, model=model)
    step, damaged = checkpoints.restore(run.shared / "checkpoints")
    step = step or 0
    team.require_same(step=step)

    progress = Progress(recipe.steps, step)
    for bad in damaged:
        progress.say(f"The checkpoint of step {bad} is damaged: going back to step {step}")
    if step >= recipe.steps and run_directory.finished(run.shared, recipe.steps):
        progress.say(f"{run.shared} has already finished. {summary(run_directory.read_metrics(run.shared))}")
        return None
    metrics = Metrics(run.path, step)
    run.write_recipe(recipe, data.label_names)
    run.add_session(step, environment.describe(strategy, recipe.precision) | {"centre": data.centre})
    progress.say(
        f"{recipe.name}: from step {step:,} to {recipe.steps:,}, {model.count_params():,} parameters, "
        f"{recipe.precision}, {strategy.num_replicas_in_sync} device(s), in {run.shared}"
    )

    strategies.draw_apart(strategy, model)

    # 2. Steps.
    schedule = recipe.build_schedule()
    train_step = make_train_step(
        strategy, model, optimizer, totals, recipe.batch_size, recipe.clip_norm, recipe.label_smoothing
    )
    evaluate_step = make_evaluate_step(strategy, model)
    batches = pipeline.taken(pipeline.distribute(strategy, data.training_batches, recipe, step))
    clock = Clock()

    def require_finite():
        if bad := totals.first_bad_step():
            raise RunFailed(
                f"The loss is not finite at step {bad}, with learning rate {float(schedule(bad - 1)):g}: "
                f"the last checkpoint before it is kept; a lower learning rate may help"
            )

    while step < recipe.steps and not (stopped := team.stop(stop.signal, step)):
        with clock.time("input"):
            batch = next(batches)
        with clock.time("step"):
            train_step(*batch)
        step += 1
        clock.images += recipe.batch_size

        last = step == recipe.steps
        log_now = last or step % recipe.log_every == 0
        evaluate_now = last or step % recipe.evaluate_every == 0
        save_now = last or step % recipe.checkpoint_every == 0
        if log_now or evaluate_now or save_now or step % CHECK_EVERY == 0:
            with clock.time("step"):  # a look waits for the device
                require_finite()

        if progress.due():
            progress.show(step, totals.means(), clock.images_per_second())
        if log_now:
            rate = float(f"{float(schedule(step - 1)):.7g}")  # the digits that float32 has
            skipped = {"skipped": totals.skipped()} if totals.skipped() else {}
            metrics.add(step, "train", **totals.means(), **skipped, learning_rate=rate, **clock.report())
            totals.reset()
            clock = Clock()
        if evaluate_now:
            test = evaluate(strategy, evaluate_step, data, "test", recipe)
            progress.say(f"step {step:,}: {describe(test, 'test')}")
            metrics.add(step, "test", **test)
            if best(metrics.lines) is metrics.lines[-1]:
                best_checkpoint.save(step)
            plot(run.path, recipe.name)
        if save_now:
            metrics.flush()
            checkpoints.save(step)

    # 3. The end, or the way to it.
    if step < recipe.steps:
        require_finite()
        metrics.flush()
        checkpoints.save(step)
        progress.say(f"Stopped by {signal.Signals(stopped).name} and saved at step {step:,}: the same command goes on")
        return stopped
    run.finish(model)
    progress.say(
        f"{run.shared} has finished, in {duration(progress.elapsed())} of this session. {summary(metrics.lines)}"
    )
    return None


class Clock:
    """Where the seconds of the steps since the last log went; evaluations and checkpoints are not counted."""

    def __init__(self):
        self.seconds = {"input": 0.0, "step": 0.0}
        self.images = 0
        self.process_began = time.process_time()

    @contextmanager
    def time(self, part):
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began

    def images_per_second(self):
        return self.images / sum(self.seconds.values())

    def report(self):
        waited = self.seconds["input"] / sum(self.seconds.values())
        return {
            "images_per_second": self.images_per_second(),
            "input_wait": waited,
            "cpu_seconds": time.process_time() - self.process_began,  # of all threads, with evaluations between
        }


class StopSignal:
    """Notes the first SIGTERM or Ctrl-C in `signal`; a second one acts as if nobody had listened."""

    def __init__(self):
        self.signal = None

    def __enter__(self):
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.handlers = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number, _):
        self.signal = number
        self._restore()

    def __exit__(self, *_):
        self._restore()

    def _restore(self):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
