"""The models of a server, whose versions come and go while it serves.

A new version is loaded and warmed up beside the old one, which answers until then. Requests that an old version is
computing keep it until they are finished. A version that cannot be loaded is reported once and passed over, and tried
again when its files have changed or the server is told to.
"""

import gc
import threading

from allconv_resnet.errors import BadInput
from allconv_resnet.progress import say
from allconv_resnet.serving.refused import Refused
from allconv_resnet.serving.savedmodel import SavedModel
from allconv_resnet.serving.versions import fingerprint, versions_of


class Models:
    """All models of a server.

    Args:
        sources: Function that returns a dictionary from the name of each model to its `Source`. It is called at each
            look, so models may come and go as well. It may raise `BadInput`.
        load: Function (path, name, version) -> `SavedModel`.
    """

    def __init__(self, sources, load=SavedModel):
        self._read, self._load = sources, load
        self._entries, self._problem = {}, None
        self._looking = threading.Lock()

    def look(self, again=False):
        """Loads and unloads what has changed on disk. It takes as long as loading does, and is called in a thread.

        Args:
            again: Boolean, whether versions that could not be loaded are tried again although nothing has changed.

        Returns:
            Boolean, whether anything has changed.
        """
        with self._looking:
            try:
                sources, problem = self._read(), None
            except BadInput as error:
                sources, problem = {name: entry.source for name, entry in self._entries.items()}, str(error)
            if problem and problem != self._problem:
                say(f"warning: {problem}. The models stay as they are")
            self._problem = problem
            entries = {name: self._entries.get(name) or _Entry() for name in sources}
            changed = entries.keys() != self._entries.keys()
            for name, entry in entries.items():
                changed |= entry.look(sources[name], self._load, again)
            self._entries = entries
            if self.loaded:  # otherwise the server ends and says what is missing
                for entry in entries.values():
                    entry.say_what_is_missing()
            if changed:
                # TensorFlow's own objects live as long as the model. If they were not frozen, every full collection,
                # about one in some hundred requests, would visit all of them and stop the server for 0.2 s.
                gc.unfreeze()
                gc.collect()
                gc.freeze()
            return changed

    @property
    def names(self):
        """The names of all models."""
        return sorted(self._entries)

    @property
    def loaded(self):
        """A list of all loaded versions, as `SavedModel`."""
        return [model for entry in self._entries.values() for model in entry.loaded.values()]

    @property
    def ready(self):
        """Whether every model has a version that answers."""
        return all(entry.loaded for entry in self._entries.values())

    @property
    def failures(self):
        """A list of strings, which say why versions could not be loaded."""
        return [why for entry in self._entries.values() for _, why in entry.failed.values()]

    @property
    def nothing(self):
        """What is missing if no version was found, as the end of a sentence."""
        places = ", ".join(str(entry.source.base) for entry in self._entries.values())
        return f"no exported model, neither saved_model.pb nor a numbered directory with one. Received: {places}"

    def find(self, name, version=None, label=None):
        """Returns a loaded version.

        Args:
            name: String.
            version: String, its number. Defaults to the newest.
            label: String, its label.

        Raises:
            Refused: with status 404 if there is none, or 503 if no version of the model is loaded.
        """
        loaded, labels = self._entry(name).serving
        if label is not None:
            if label not in labels:
                raise Refused(404, f"There is no label {label[:100]} of {name}")
            version = str(labels[label])
        if not loaded:
            raise Refused(503, f"No version of {name} is loaded")
        if version is None:
            return loaded[max(loaded)]
        model = {str(number): model for number, model in loaded.items()}.get(version)
        if model is None:
            known = ", ".join(map(str, sorted(loaded)))
            raise Refused(404, f"There is no version {version[:100]} of {name}. Loaded: {known}")
        return model

    def states(self, name):
        """Returns a list of pairs, the newest first: the number of a version, and why it failed or an empty string.

        Raises:
            Refused: with status 404 if there is no such model.
        """
        entry = self._entry(name)
        states = {number: why for number, (_, why) in entry.failed.items()} | dict.fromkeys(entry.loaded, "")
        return sorted(states.items(), reverse=True)

    def _entry(self, name):
        if name not in self._entries:
            raise Refused(404, f"There is no model {name[:100]}. The models are {', '.join(self.names)}")
        return self._entries[name]


class _Entry:
    """One model. Its dictionaries are replaced and never changed, since requests read them at the same time."""

    def __init__(self):
        self.source, self.failed, self._marks, self.problem = None, {}, {}, ""
        self._found, self._missing = {}, ""
        self.serving = {}, {}
        """The loaded versions by number, and the numbers of versions by label. Both change at once."""

    @property
    def loaded(self):
        return self.serving[0]

    def look(self, source, load, again=False):
        self.source = source
        try:
            found = versions_of(source.base)
            marks = {number: fingerprint(path) for number, path in found.items() if self._wanted(number)}
        except OSError as error:  # a disk that is away, or too many open files: nothing is known of the versions
            if self.problem != (problem := str(error)):
                say(f"warning: the versions of {source.name} cannot be listed, and stay as they are: {problem}")
            self.problem = problem
            return False
        self.problem, self._found = "", found
        loaded, failed, loaded_marks = {}, {}, {}
        for number in sorted(marks, reverse=True):
            if source.latest is not None and not source.specific and len(loaded) == source.latest:
                break
            if number in self.loaded and self._marks[number] == marks[number]:
                loaded[number], loaded_marks[number] = self.loaded[number], marks[number]
                continue
            if number in self.failed and self.failed[number][0] == marks[number] and not again:
                failed[number] = self.failed[number]
            else:
                try:
                    model = load(found[number], source.name, number)
                    model.warm_up()
                    loaded[number], loaded_marks[number] = model, marks[number]
                    say(f"Version {number} of {source.name} is loaded")
                except BadInput as error:
                    failed[number] = (marks[number], str(error))
                    say(f"warning: {error}")
            if number in failed and number in self.loaded:  # it has been replaced by something that cannot be loaded
                loaded[number], loaded_marks[number] = self.loaded[number], self._marks[number]
        changed = loaded != self.loaded
        for number in self.loaded.keys() - loaded.keys():
            say(f"Version {number} of {source.name} is no longer served")
        self.serving, self.failed, self._marks = (loaded, source.labels), failed, loaded_marks
        return changed

    def say_what_is_missing(self):
        """Says once that there is no version, or which of those that are asked for are not there."""
        asked = {*self.source.specific, *self.source.labels.values()} - self._found.keys()
        numbers = ", ".join(map(str, sorted(asked)))
        missing = f"no version {numbers}" if asked else "" if self._found else "no version"
        if missing and missing != self._missing:
            say(f"warning: {self.source.name} has {missing} in {self.source.base}")
        self._missing = missing

    def _wanted(self, number):
        return not self.source.specific or number in self.source.specific
