"""The models among which visitors choose. Only those in use are in memory."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from pix2seqd.checkpoint import Settings, settings_of
from pix2seqd.files import InputError
from pix2seqd.interop.cards import Card, bundled, finds
from pix2seqd.segmenter import Segmenter

KEPT = 2
"""Models in memory: one for images, and one for clips. One more is there while a request still computes with it."""


class Models:
    """The model that the server was started with, and the bundled ones.

    Args:
        first: the first one.
        load: loads one of the others by its name; None: there are no others.
        card: what is known of the first one; None: what it finds.
    """

    def __init__(self, first: Segmenter, load: Callable[[str], Segmenter] | None = None, card: Card | None = None):
        self.first, self._load = first.checkpoint.name, load
        """Name of the first one."""
        others = {known.name: known for known in bundled()} if load else {}
        card = card or others.get(self.first) or Card(self.first, finds(first.taxonomy))
        self.cards = {self.first: card} | others | {self.first: card}
        """What is known of each, by name."""
        given = first.checkpoint
        self._settings = {self.first: Settings(given.model.config, given.data, given.infer, given.taxonomy)}
        self._loaded = OrderedDict({self.first: first})
        self._lock = Lock()

    def settings(self, name: str) -> Settings:
        """The settings of a model, which need not be in memory; an `InputError` if there is no such model."""
        if name not in self._settings:
            self._check(name)
            self._settings[name] = settings_of(name)
        return self._settings[name]

    def for_clips(self, name: str) -> str:
        """The model that follows through clips what this one finds in images; the same one if there is no other."""
        self._check(name)
        other = self.cards[name].for_clips
        return other if other in self.cards else name

    def is_loaded(self, name: str) -> bool:
        """Whether a model is in memory."""
        return name in self._loaded

    def get(self, name: str) -> Segmenter:
        """A model. If it is not in memory it is loaded, and the one that was not used for longest makes room."""
        self._check(name)
        with self._lock:
            if name not in self._loaded:
                assert self._load is not None
                while len(self._loaded) >= KEPT:
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(name)
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def _check(self, name: str) -> None:
        if name not in self.cards:
            raise InputError(f"there is no model {name!r} here; choose one of {', '.join(self.cards)}")
