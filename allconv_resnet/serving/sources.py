"""Which models and which of their versions a server has: from its command line, or TensorFlow Serving's configuration.

https://www.tensorflow.org/tfx/serving/serving_config
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from allconv_resnet import files
from allconv_resnet.errors import BadInput


@dataclass(frozen=True)
class Source:
    """Where a model is, and which of its versions are served."""

    name: str
    base: Path
    """Directory of the versions, or one version."""
    latest: int | None = 1
    """How many of the newest versions are served. None means all."""
    specific: frozenset = frozenset()
    """Numbers of the versions that are served. If there are any, `latest` does not count."""
    labels: dict = field(default_factory=dict)
    """Dictionary from a label to the number of a version."""

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise BadInput(f"The name of a model is letters, digits, -, _ and dots. Received: {self.name!r}")


def read_sources(export, options):
    """Returns a dictionary from the name of each model to its `Source`.

    Args:
        export: Path of the export that is called `options.name`, or None.
        options: `ServeOptions`, of which `name`, `model` and `model_config` count.

    Raises:
        BadInput: if there is none, two have the same name, or the configuration cannot be read.
    """
    sources = [] if export is None else [Source(options.name, Path(export))]
    for text in options.model:
        name, equals, base = text.partition("=")
        if not equals or not base:
            raise BadInput(f"--model must be NAME=DIR. Received: {text!r}")
        sources.append(Source(name, files.expand(base, "--model")))
    if options.model_config:
        sources += read_model_config(options.model_config)
    if not sources:
        raise BadInput("There is nothing to serve: name an export, or use --model NAME=DIR or --model-config FILE")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise BadInput(f"Every model must have a name of its own. Received: {', '.join(names)}")
    return {source.name: source for source in sources}


def read_model_config(path):
    """Returns the models of a file in the form of TensorFlow Serving's `--model_config_file`, as a list of `Source`.

    Args:
        path: Path of the text of a `ModelServerConfig`.

    Raises:
        BadInput: if it cannot be read, or sets what this server does not have.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig  # imports TensorFlow

    try:
        config = text_format.Parse(Path(path).read_text(encoding="utf-8"), ModelServerConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BadInput(f"The configuration of models {path} cannot be read: {error}") from error
    if config.WhichOneof("config") != "model_config_list":
        raise BadInput(f"The configuration of models {path} must have a model_config_list. Received: another")
    return [_source(entry, path) for entry in config.model_config_list.config]


def _source(entry, path):
    if entry.model_platform not in ("", "tensorflow"):
        raise BadInput(f"model_platform must be tensorflow in {path}. Received: {entry.model_platform!r}")
    policy = entry.model_version_policy
    latest, specific = 1, frozenset()
    match policy.WhichOneof("policy_choice"):
        case "all":
            latest = None
        case "latest":
            latest = max(1, policy.latest.num_versions)
        case "specific":
            specific = frozenset(policy.specific.versions)
    return Source(entry.name, files.expand(entry.base_path, "base_path"), latest, specific, dict(entry.version_labels))
