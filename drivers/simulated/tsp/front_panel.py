"""The front panel of the simulated Series 2600B as scripts use it: text, dialogs, the TRIG key.

After the reference manual 2600BS-901-01 (Rev. F pages 9-69 and 9-77 at easymanua.ls, Rev. C pages
3-74 and 7-79: size of the text, character codes, what dialogs take and give). A person's answers to
dialogs and key presses come from the control socket, in advance: what a script asks for and nobody
has answered is an error here, where the instrument would wait. Unverified: the numbers of the keys
but MENU (68), that `gettext` gives whole rows, that text beyond a row is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from typing_extensions import override

from rram_hil.errors import ConfigError

from .lua_library import text_at
from .lua_values import Attribute, LuaError, LuaTable, Value, number, to_number, to_string
from .triggers import TriggerObject, Unit

ROWS = (20, 32)
"""Characters of each row."""
KEYS = (
    "NONE",
    "RANGEUP",
    "MODEB",
    "RELB",
    "MENU",
    "MODEA",
    "RELA",
    "RUN",
    "DISPLAY",
    "AUTO",
    "FILTERB",
    "EXIT",
    "SPEEDB",
    "TRIG",
    "LIMITB",
    "SPEEDA",
    "LOAD",
    "SRCB",
    "ENTER",
    "MEASB",
    "DIGITSB",
    "RECALL",
    "MEASA",
    "DIGITSA",
    "OUTPUTA",
    "LIMITA",
    "STORE",
    "SRCA",
    "CONFIG",
    "RANGEDOWN",
    "FILTERA",
    "RIGHT",
    "LEFT",
    "OUTPUTB",
)
KEY_CODES = {name: float(64 + at if at else 0) for at, name in enumerate(KEYS)}
TRIG, EXIT = "TRIG", "EXIT"


class TrigKey(TriggerObject):
    """`display.trigger`: the TRIG key. Presses that came too early wait until something waits for
    them.
    """

    def __init__(self, instrument: Unit, is_sweeping: Callable[[], bool]) -> None:
        super().__init__(instrument)
        self._is_sweeping = is_sweeping
        self.waiting = 0

    def press(self) -> None:
        """Somebody presses the key: now where a sweep is under way, else for what waits next."""
        if self._is_sweeping():
            self.happen()
        else:
            self.waiting += 1

    def take(self) -> bool:
        """Let a press that came early happen now; False where there is none."""
        if not self.waiting:
            return False
        self.waiting -= 1
        self.happen()
        return True

    @override
    def wait(self, timeout: Value) -> bool:
        if not self.detected:
            self.take()
        return super().wait(timeout)


class FrontPanel:
    """Display, keys and dialogs. `table` is `display`."""

    def __init__(
        self, instrument: Unit, channels: Iterable[str], is_sweeping: Callable[[], bool]
    ) -> None:
        self.trigger = TrigKey(instrument, is_sweeping)
        self._answers: deque[str] = deque()
        self._keys: deque[str] = deque()
        self._menu: dict[str, Value] = {}
        self._last_key = "NONE"
        self._plain: dict[str, float] = {}
        self._clear()
        self.table = self._display(tuple(channels))

    def act(self, answers: Iterable[object], keys: Iterable[object]) -> None:
        """What a person does: answers to the next dialogs ("EXIT" leaves one), keys by name.

        Raises `ConfigError` for a key that is none.
        """
        pressed = [str(key).upper() for key in keys]
        for key in pressed:
            if key not in KEY_CODES:
                raise ConfigError(f"key {key!r} is not one of {', '.join(KEYS[1:])}")
        self._answers.extend(str(answer) for answer in answers)
        for key in pressed:
            self._last_key = key
            if key == TRIG:
                self.trigger.press()
            else:
                self._keys.append(key)

    @property
    def text(self) -> tuple[str, str]:
        """What the two rows show."""
        first, second = ("".join(row).rstrip() for row in self._rows)
        return first, second

    # Text

    def _clear(self) -> None:
        self._rows = [[" "] * width for width in ROWS]
        self._cursor = (1, 1, 0)

    def _set_cursor(self, row: Value, column: Value, style: Value = 0.0) -> None:
        at = int(number(row, 1, len(ROWS)))
        self._cursor = (at, int(number(column, 1, ROWS[at - 1])), int(number(style, 0, 1)))

    def _set_text(self, text: Value) -> None:
        row, column, style = self._cursor
        letters = iter(text_at(text, 1, "settext"))
        for letter in letters:
            if letter == "$":
                code = next(letters, "")
                if code == "N" and row == 1:
                    row, column = 2, 1
                if code != "$":
                    continue
            if column <= ROWS[row - 1]:
                self._rows[row - 1][column - 1] = letter
                column += 1
        self._cursor = (row, min(column, ROWS[row - 1]), style)

    def _get_text(
        self, _embellished: Value = None, row: Value = None, first: Value = 1.0, last: Value = None
    ) -> str:
        if row is None:
            return "$N".join("".join(each) for each in self._rows)
        at = int(number(row, 1, len(ROWS)))
        end = ROWS[at - 1] if last is None else number(last, 1, ROWS[at - 1])
        return "".join(self._rows[at - 1][int(number(first, 1, ROWS[at - 1])) - 1 : int(end)])

    # Dialogs

    def _answer(self, dialog: str) -> str:
        if not self._answers:
            raise LuaError(
                f"display.{dialog} waits for an answer at the front panel: there is none"
            )
        return self._answers.popleft()

    def _ask_number(self, dialog: str, default: Value, low: Value, high: Value) -> Value:
        answer = self._answer(dialog)
        if answer == EXIT:
            return (None,)
        value = to_number(default) if answer == "" else to_number(answer)
        lowest = -1e37 if low is None else number(low)
        highest = 1e37 if high is None else number(high)
        if value is None or not lowest <= value <= highest:
            raise LuaError(
                f"display.{dialog}: {answer!r} cannot be entered: a number from"
                f" {lowest:g} to {highest:g}"
            )
        return value

    def _prompt(
        self,
        _format: Value,
        _units: Value = None,
        text: Value = "",
        default: Value = 0.0,
        low: Value = None,
        high: Value = None,
    ) -> Value:
        self._clear()
        self._set_text(f"$N{to_string(text)}")
        return self._ask_number("prompt", default, low, high)

    def _input(
        self, _format: Value, default: Value = 0.0, low: Value = None, high: Value = None
    ) -> Value:
        return self._ask_number("inputvalue", default, low, high)

    def _choose(self, name: Value, items: Value) -> Value:
        self._clear()
        self._set_text(text_at(name, 1, "menu"))
        choices = text_at(items, 2, "menu").split()
        answer = self._answer("menu")
        if answer == EXIT:
            return (None,)
        if answer not in choices:
            raise LuaError(f"display.menu: {answer!r} is not one of {', '.join(choices)}")
        return answer

    def _wait_key(self) -> float:
        if not self._keys:
            raise LuaError("display.waitkey waits for a key at the front panel: there is none")
        return KEY_CODES[self._keys.popleft()]

    def _send_key(self, code: Value) -> None:
        wanted = number(code)
        key = next((name for name, each in KEY_CODES.items() if each == wanted), "NONE")
        self._last_key = key
        if key == TRIG:
            self.trigger.happen()

    # The table

    def _display(self, channels: tuple[str, ...]) -> LuaTable:
        names = ["SMUA", "SMUB", "SMUA_SMUB", "USER"]
        if len(channels) == 1:
            names = ["SMUA", "", "", "USER"]
        constants: dict[str, Value] = {
            **{name: float(at) for at, name in enumerate(names) if name},
            **{f"KEY_{name}": code for name, code in KEY_CODES.items()},
            **{
                f"MEASURE_{name}": float(at)
                for at, name in enumerate(("DCAMPS", "DCVOLTS", "OHMS", "WATTS"))
            },
            "DISABLE": 0.0,
            "ENABLE": 1.0,
            "UNLOCK": 0.0,
            "LOCK": 1.0,
            "DONT_SAVE": 0.0,
            "SAVE": 1.0,
            "LIMIT_IV": 0.0,
            "LIMIT_P": 1.0,
            "DIGITS_4_5": 4.0,
            "DIGITS_5_5": 5.0,
            "DIGITS_6_5": 6.0,
        }
        table = LuaTable(
            {
                **constants,
                "clear": self._clear,
                "settext": self._set_text,
                "gettext": self._get_text,
                "setcursor": self._set_cursor,
                "getcursor": lambda: tuple(float(each) for each in self._cursor),
                "prompt": self._prompt,
                "inputvalue": self._input,
                "menu": self._choose,
                "waitkey": self._wait_key,
                "sendkey": self._send_key,
                "getlastkey": lambda: KEY_CODES[self._last_key],
                "trigger": self.trigger.table,
                "loadmenu": self._load_menu(),
            },
            {
                **self._setting("screen", 0.0, 3.0),
                **self._setting("locallockout", 0.0, 1.0),
                **self._setting("numpad", 1.0, 1.0),
            },
        )
        for each in channels:
            table.set(f"smu{each}", self._channel(each))
        return table

    def _channel(self, name: str) -> LuaTable:
        return LuaTable(
            {
                part: LuaTable(attributes=self._setting("func", 0.0, most, f"{part} {name}"))
                for part, most in (("measure", 3.0), ("limit", 1.0))
            },
            self._setting("digits", 5.0, 6.0, f"digits {name}"),
        )

    def _setting(
        self, name: str, default: float, most: float, key: str = ""
    ) -> dict[str, Attribute]:
        """A setting that only the display shows."""
        kept = key or name
        self._plain[kept] = default

        def put(value: Value) -> None:
            self._plain[kept] = float(value) if isinstance(value, bool) else number(value, 0, most)

        return {name: (lambda: self._plain[kept], put)}

    def _load_menu(self) -> LuaTable:
        def add(name: Value, code: Value, _memory: Value = 1.0) -> None:
            self._menu[text_at(name, 1, "add")] = text_at(code, 2, "add")

        def catalog() -> Callable[..., Value]:
            items = iter(list(self._menu.items()))
            return lambda *_: next(items, None)

        return LuaTable(
            {
                "add": add,
                "delete": lambda name: self._menu.pop(text_at(name, 1, "delete"), None) and None,
                "catalog": catalog,
            }
        )
