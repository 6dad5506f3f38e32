"""The status model of the simulated Series 2600B: `status.*`, its registers and what they sum up.

After the reference manual 2600BS-901-01 (Rev. F pages 9-283, 9-302, 9-325, Rev. C pages 7-283,
7-285, 7-325, 7-331 and appendix E at easymanua.ls and manualshive.com) and, for
`status.operation`, that of the 2606B (Rev. C page 15-291). Conditions of calibration, temperature,
unstable outputs, LAN and other nodes stay 0. Unverified: the bits of
`status.operation.instrument.smuX` (those of `status.operation` are taken), of `status.system` and
of overruns of timers, blenders and lines (their numbers are taken); those of a channel are as a
public script of the maker reads them (26xxA_Check_for_Overrun.tsp).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .lua_values import LuaTable, Value, number

ALL = 65535
SMUS = {"SMUA": 1, "SMUB": 2}
MEASUREMENT = {
    "voltage_limit": ("VOLTAGE_LIMIT", "VLMT", 0),
    "current_limit": ("CURRENT_LIMIT", "ILMT", 1),
    "reading_overflow": ("READING_OVERFLOW", "ROF", 7),
    "buffer_available": ("BUFFER_AVAILABLE", "BAV", 8),
}
OVERRUNS = {
    "TRIGGER_BLENDER": 10,
    "TRGBLND": 10,
    "TRIGGER_TIMER": 11,
    "TRGTMR": 11,
    "DIGITAL_IO": 12,
    "DIGIO": 12,
    "TSPLINK": 13,
    "LAN": 14,
}
CHANNEL = {
    "CALIBRATING": 0,
    "CAL": 0,
    "SWEEPING": 3,
    "SWE": 3,
    "MEASURING": 4,
    "MEAS": 4,
    "TRGOVR": 10,
}
QUESTIONABLE = {
    "CALIBRATION": 8,
    "CAL": 8,
    "UNSTABLE_OUTPUT": 9,
    "UO": 9,
    "OVER_TEMPERATURE": 12,
    "OTEMP": 12,
}
STANDARD = {
    "OPERATION_COMPLETE": 0,
    "OPC": 0,
    "QUERY_ERROR": 2,
    "QYE": 2,
    "DEVICE_DEPENDENT_ERROR": 3,
    "DDE": 3,
    "EXECUTION_ERROR": 4,
    "EXE": 4,
    "COMMAND_ERROR": 5,
    "CME": 5,
    "USER_REQUEST": 6,
    "URQ": 6,
    "POWER_ON": 7,
    "PON": 7,
}
BYTE = {
    "MEASUREMENT_SUMMARY_BIT": 0,
    "MSB": 0,
    "SYSTEM_SUMMARY_BIT": 1,
    "SSB": 1,
    "ERROR_AVAILABLE": 2,
    "EAV": 2,
    "QUESTIONABLE_SUMMARY_BIT": 3,
    "QSB": 3,
    "MESSAGE_AVAILABLE": 4,
    "MAV": 4,
    "EVENT_SUMMARY_BIT": 5,
    "ESB": 5,
    "MASTER_SUMMARY_STATUS": 6,
    "MSS": 6,
    "OPERATION_SUMMARY_BIT": 7,
    "OSB": 7,
}


class Measured(Protocol):
    """What the registers ask of a channel."""

    @property
    def condition_bits(self) -> int:
        """Limits, overflow, readings in dedicated buffers: bits of `instrument.smuX`."""

    @property
    def rises(self) -> Sequence[int]:
        """How often each of these bits has come to be set so far."""

    @property
    def is_sweeping(self) -> bool:
        """Whether its trigger model has left idle."""

    @property
    def overruns(self) -> int:
        """Stimuli of its trigger model that were overrun, as bits from 1 on."""

    @property
    def is_measuring(self) -> bool:
        """Whether an overlapped measurement is under way."""


class Register:
    """One register set: what is, what has been since it was last read, which of it counts.

    Its `table` has the five parts, the bits by name and the registers below it.
    """

    def __init__(
        self,
        condition: Callable[[], int] = lambda: 0,
        bits: Mapping[str, int] | None = None,
        below: Mapping[str, tuple[int, Register]] | None = None,
    ) -> None:
        self._rises: Callable[[], Sequence[int]] = tuple
        self._risen: Sequence[int] = ()
        self._own = condition
        self._below = dict(below or {})
        self._last = 0
        self._event = 0
        self.default()
        self.table = LuaTable(
            {name: float(1 << bit) for name, bit in (bits or {}).items()},
            {
                "condition": (lambda: float(self.condition), None),
                "event": (self._take, None),
                "enable": (lambda: float(self._enable), self._put("_enable")),
                "ptr": (lambda: float(self._rise), self._put("_rise")),
                "ntr": (lambda: float(self._fall), self._put("_fall")),
            },
            sealed=True,
        )
        for name, (_, register) in self._below.items():
            self.table.values[name] = register.table

    def count(self, rises: Callable[[], Sequence[int]]) -> None:
        """`rises` counts, bit by bit, what may come and go between two looks."""
        self._rises = rises

    def default(self) -> None:
        """After `status.reset()`: nothing counts and nothing has been."""
        self._enable, self._rise, self._fall, self._event = 0, ALL, 0, 0
        for _, register in self._below.values():
            register.default()

    @property
    def condition(self) -> int:
        """What is now."""
        return self._own() | sum(1 << bit for bit, each in self._below.values() if each.summary)

    @property
    def summary(self) -> bool:
        """Whether anything that counts has been."""
        self.look()
        return bool(self._event & self._enable)

    def look(self) -> None:
        """Keep what has begun or ended since the last look."""
        for _, register in self._below.values():
            register.look()
        now, before = self.condition, self._last
        self._last = now
        self._event |= (now & ~before & self._rise) | (before & ~now & self._fall)
        risen, known = tuple(self._rises()), self._risen or (0,) * 16
        self._risen = risen
        for bit, (count, counted) in enumerate(zip(risen, known, strict=False)):
            if count > counted:
                self._event |= 1 << bit & self._rise

    def _take(self) -> float:
        self.look()
        event, self._event = self._event, 0
        return float(event)

    def _put(self, name: str) -> Callable[[Value], None]:
        def put(value: Value) -> None:
            self.look()
            setattr(self, name, int(number(value, 0, ALL)))

        return put


class StatusModel:
    """`status.*` but the status byte and the standard event register."""

    def __init__(
        self,
        channels: Mapping[str, Measured],
        overruns: Mapping[str, Callable[[], int]],
        interlock: Mapping[str, int],
    ) -> None:
        """`overruns` tells which objects of a kind ("digio", "trigger_timer" ...) were overrun, as
        bits; `interlock` names bit 11 of `status.measurement`.
        """
        self._channels = dict(channels)
        self._overruns = dict(overruns)
        self.user = 0
        self.measurement = self._measurement(interlock)
        self.operation = self._operation()
        self.questionable = self._questionable()
        self.system = self._system()
        self.registers = {
            "measurement": self.measurement,
            "operation": self.operation,
            "questionable": self.questionable,
            **self.system,
        }

    def look(self) -> None:
        """Something has begun or ended."""
        for register in self.registers.values():
            register.look()

    def default(self) -> None:
        """`status.reset()`."""
        self.user = 0
        for register in self.registers.values():
            register.default()

    def byte(self) -> int:
        """The bits of the status byte that sum these registers up."""
        counts = {0: self.measurement, 3: self.questionable, 7: self.operation}
        return sum(1 << bit for bit, register in counts.items() if register.summary)

    def _smus(self, is_so: Callable[[Measured], bool] = lambda _: False) -> Register:
        """A register with one bit a channel."""

        def condition() -> int:
            return sum(2 << at for at, each in enumerate(self._channels.values()) if is_so(each))

        return Register(condition, self._named())

    def _measured(self, bit: int) -> Register:
        """A register with one bit a channel: whether that bit of its condition is set."""
        register = self._smus(lambda smu: bool(smu.condition_bits >> bit & 1))
        register.count(lambda: [0, *(smu.rises[bit] for smu in self._channels.values())])
        return register

    def _each(self, make: Callable[[Measured], Register]) -> dict[str, tuple[int, Register]]:
        return {
            f"smu{name}": (1 + at, make(each))
            for at, (name, each) in enumerate(self._channels.items())
        }

    def _named(self) -> dict[str, int]:
        return {f"SMU{name.upper()}": 1 + at for at, name in enumerate(self._channels)}

    def _measurement(self, interlock: Mapping[str, int]) -> Register:
        names = {n: bit for *both, bit in MEASUREMENT.values() for n in both}
        below = {name: (bit, self._measured(bit)) for name, (_, _, bit) in MEASUREMENT.items()}
        each = self._each(lambda smu: self._limits(smu, names))
        below["instrument"] = (13, Register(bits=self._named(), below=each))
        summed = {**names, **interlock, "INSTRUMENT_SUMMARY": 13, "INST": 13}
        return Register(bits=summed, below=below)

    @staticmethod
    def _limits(smu: Measured, names: Mapping[str, int]) -> Register:
        register = Register(lambda: smu.condition_bits, names)
        register.count(lambda: smu.rises)
        return register

    def _operation(self) -> Register:
        def channel(smu: Measured) -> Register:
            overrun = Register(lambda: smu.overruns, {"ARM": 1, "SRC": 2, "MEAS": 3, "ENDP": 4})
            return Register(
                lambda: smu.is_sweeping << 3 | smu.is_measuring << 4,
                CHANNEL,
                {"trigger_overrun": (10, overrun)},
            )

        kinds = {"trigger_blender": 10, "trigger_timer": 11, "digio": 12, "tsplink": 13, "lan": 14}
        objects = {
            name: (
                bit,
                Register(
                    bits={
                        "TRIGGER_OVERRUN": 10,
                        "TRGOVR": 10,
                        **({"CONNECTION": 0, "CON": 0} if name == "lan" else {}),
                        **({"CONFIGURING": 1, "CONF": 1} if name == "lan" else {}),
                    },
                    below={"trigger_overrun": (10, Register(self._overruns.get(name, lambda: 0)))},
                ),
            )
            for name, bit in kinds.items()
            if name == "lan" or name in self._overruns
        }
        wanted = {
            name: bit
            for name, bit in OVERRUNS.items()
            if bit in {number_ for number_, _ in objects.values()}
        }
        instrument = Register(
            bits={**self._named(), **wanted}, below={**self._each(channel), **objects}
        )
        user = Register(lambda: self.user, {f"BIT{n}": n for n in range(15)})
        user.table.attributes["condition"] = (lambda: float(self.user), self._put_user)

        def overrun() -> int:
            smus = sum(2 << at for at, each in enumerate(self._channels.values()) if each.overruns)
            return smus | sum(
                1 << bit
                for name, bit in kinds.items()
                if name in self._overruns and self._overruns[name]()
            )

        return Register(
            lambda: 1 << 14,  # whoever reads it is a program that runs
            {
                "CALIBRATING": 0,
                "CAL": 0,
                "SWEEPING": 3,
                "SWE": 3,
                "MEASURING": 4,
                "MEAS": 4,
                "TRIGGER_OVERRUN": 10,
                "TRGOVR": 10,
                "REMOTE_SUMMARY": 11,
                "REM": 11,
                "USER": 12,
                "INSTRUMENT_SUMMARY": 13,
                "INST": 13,
                "PROGRAM_RUNNING": 14,
                "PROG": 14,
            },
            {
                "calibrating": (0, self._smus()),
                "sweeping": (3, self._smus(lambda smu: smu.is_sweeping)),
                "measuring": (4, self._smus(lambda smu: smu.is_measuring)),
                "trigger_overrun": (10, Register(overrun, {**self._named(), **wanted})),
                "remote": (
                    11,
                    Register(
                        bits={
                            "COMMAND_AVAILABLE": 0,
                            "CAV": 0,
                            "PROMPTS_ENABLED": 11,
                            "PRMPT": 11,
                        }
                    ),
                ),
                "user": (12, user),
                "instrument": (13, instrument),
            },
        )

    def _put_user(self, value: Value) -> None:
        self.user = int(number(value, 0, 0x7FFF))
        self.look()

    def _questionable(self) -> Register:
        each = self._each(lambda _: Register(bits=QUESTIONABLE))
        return Register(
            bits={**QUESTIONABLE, "HIGHV_NOT_READY": 11, "INSTRUMENT_SUMMARY": 13, "INST": 13},
            below={
                "calibration": (8, self._smus()),
                "unstable_output": (9, self._smus()),
                "over_temperature": (12, self._smus()),
                "instrument": (13, Register(bits=self._named(), below=each)),
            },
        )

    def _system(self) -> dict[str, Register]:
        registers = {}
        for at in range(5):
            nodes = range(1, 15 if at < 4 else 9)
            bits = {f"NODE{14 * at + n}": n for n in nodes}
            if at < 4:
                bits |= {"EXTENSION_BIT": 0, "EXT": 0}
            registers[f"system{at + 1 if at else ''}"] = Register(bits=bits)
        return registers
