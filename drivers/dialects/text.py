"""What the drivers of all instruments that are spoken to in text share: who it is, its error queue,
outputs off.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from typing_extensions import override

from rram_hil.errors import BenchError, ConfigError, InstrumentError, LinkError
from rram_hil.hardware.driver import Identity
from rram_hil.hardware.instrument import Instrument
from rram_hil.wire.dialog import Dialog, count_question
from rram_hil.wire.open_link import make_link

UNTOUCHED = "ITS OUTPUTS WERE NOT TOUCHED AND MAY BE ON: look at it, and switch them off by hand"
"""What is said of whatever stands at the other end where it is not the instrument to be driven."""


class TextInstrument(Instrument):
    """An instrument that answers `*IDN?`. `identity` is what `connect` found, `told_model` the
    model that it says it is, `model` the one by whose table it is driven.
    """

    ENDING: ClassVar[bytes] = b"\n"
    identity: Identity
    told_model: str

    @abstractmethod
    def probe(self, nonce: int) -> tuple[str, str]:
        """The question that proves the link in step after a timeout, and its answer."""

    def question(self, nonce: int) -> tuple[str, Callable[[str], bool]]:
        """The question that proves the link at `connect`: it changes nothing."""
        return count_question(nonce)

    @override
    def connect(self) -> Identity:
        config = self.config
        link = make_link(config.resource, self.traffic, **config.link_settings())
        self.dialog = Dialog(link, self.probe, timeout_s=config.timeout_s, ending=self.ENDING)
        self.dialog.open()
        nonce = secrets.randbits(31) if self.traffic is None else self.traffic.nonce()
        try:
            self.dialog.prove(self.question, nonce)
            identification = self.dialog.query("*IDN?")
            maker, model, serial, firmware = (
                [p.strip("\0 \t") for p in identification.split(",")] + [""] * 4
            )[:4]
            self.told_model = told = self.plain_model(model)
            self.model = self.accept(maker, told)
            if config.serial not in ("", serial):
                raise ConfigError(
                    f"{config.resource}: the serial number of this {told} is {serial!r}, not"
                    f" {config.serial!r}: is it another one's place?"
                )
            name = told if self.is_made_by(maker) else f"{maker} {told}"
            if name != self.model:
                name = f"{name} treated as {self.model}"
            self.identity = Identity(name, serial, firmware)
            self.look()
        except (ConfigError, LinkError) as error:
            self.dialog.close()
            error.message += f"; {UNTOUCHED}"
            error.outputs_off = False
            raise
        except BaseException:
            self.dialog.close()
            raise
        return self.identity

    def look(self) -> None:
        """Learn what else must be known of the instrument once it is identified (cards, modules,
        command set), changing nothing. Raises `ConfigError` for one that cannot be driven.
        """

    @override
    def safe_off(self) -> None:
        """All outputs off; once more, on a link in step, where the first try fails or an output is
        still on after it.
        """
        if not hasattr(self, "identity"):
            raise LinkError(f"{self.name}: not connected; call connect() first")
        try:
            self.switch_off()
            if self.is_off():
                return
        except BenchError:
            if not self.dialog.link.is_open:
                self.dialog.reopen(self.config.reconnect_s)
        # What is under way may hold the answer back, on a link that was opened again too.
        self.dialog.out_of_step()
        self.switch_off()
        if not self.is_off():
            raise InstrumentError(f"{self.name}: an output is still on after it was switched off")

    @abstractmethod
    def switch_off(self) -> None:
        """Send what takes all outputs to zero and off; `safe_off` verifies. Must not depend on the
        instrument's settings.
        """


class QueueInstrument(TextInstrument):
    """One whose error queue is asked entry by entry."""

    ERROR_QUERY: ClassVar[str] = ":SYST:ERR?"
    MOST_ERRORS: ClassVar[int] = 64
    """Entries after which an error queue is not believed to be one."""
    _nothing = ""
    """The instrument's own words for a queue that is empty, once they have been read."""

    @abstractmethod
    def error_of(self, entry: str, message: str) -> InstrumentError:
        """An error entry as an exception; code 0 says that there is none. Raises `LinkError` where
        it is no entry.
        """

    @override
    def errors(self) -> list[InstrumentError]:
        entries: list[InstrumentError] = []
        for _ in range(self.MOST_ERRORS):
            error = self.error_of(self.dialog.query(self.ERROR_QUERY), "")
            if error.code == 0:
                return entries
            entries.append(error)
        raise LinkError(f"{self.name}: more than {self.MOST_ERRORS} errors and no end")

    def raise_error(self, entry: str, message: str) -> None:
        """Raise an error entry unless it says that there is none; the rest of the queue is emptied
        and told along.
        """
        if entry and entry == self._nothing:
            return
        error = self.error_of(entry, message)
        if error.code != 0:
            raise combined([error, *self.errors()], str(error), message)
        self._nothing = entry


def number_in(word: str, name: str) -> float:
    """A finite number in the reply of the instrument `name`. Raises `LinkError` where it is
    none.
    """
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(word)):
            return value
    raise LinkError(f"{name}: {word[:60]!r} is no number")


def combined(errors: list[InstrumentError], text: str, message: str) -> InstrumentError:
    """The first of the errors after a message, told as `text`, with the codes of the others."""
    first, *more = errors
    if more:
        text += f" (and {len(more)} more: {'; '.join(str(e.code) for e in more[:5])})"
    return InstrumentError(text, code=first.code, command=message)
