"""Programs that others wrote, as clients of the simulated instruments: which of their public
parameters and methods work, which do not, and why.

`python tests/helpers/real_programs.py` prints the table of docs/instrument-sheets.md ("Real
programs"); with `--why` also each name that does not pass; with names of programs, only those.

A parameter passes where it is read without an error, and where it takes back the value that it was
read with; a method that needs no argument where it returns. No error may be left in the
instrument's queue. What needs an argument that only a person knows is counted as not tried.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rram_hil.drivers.simulated.bases import InstrumentServer, Loads, Place
from rram_hil.drivers.simulated.conformance import Family
from rram_hil.simulation.config import Timing

TIMEOUT_S = 1.0
LOAD_OHM = 1e4
LAST = ("shutdown", "reset", "clear", "close")
"""Methods that are called after all others."""
KNOWN = {
    "not simulated: ": "not simulated",
    "does not have a Python API": "it has no commands for this model",
    "Unable to determine which device": "it does not know a 3706A-SNFP",
    "'float' object is not subscriptable": "it takes one number for a list",
    "is not an int or float": "it does not take back what it reads",
    "is not in the discrete set": "it does not take back what it reads",
    "is not in {": "it does not take back what it reads",
    "is invalid: must be between": "it does not take back what it reads",
    "etup the sweep": "it wants a sweep set up first",
    "all `sweep_setup`": "it wants a sweep set up first",
    "Fastsweep not configured": "it wants a sweep set up first",
    "Timed out waiting for Keithley": "it waits for a buffer that nobody fills",
    "trigger_overrrun": "it spells `trigger_overrrun`",
    "write-only": "it says that it cannot be read",
    "is read-only": "network settings cannot be set",
    "An empty string was returned": "it takes no empty text for an answer",
    "TSP Syntax error": "it sends back texts without quotes",
    "at the front panel": "a person would answer",
    "global `smub'": "the model has one channel",
    "global `tsplink'": "the model has no TSP-Link",
    "global `digio'": "the model has no digital lines",
    "Specified Range Name 0": "it does not know that a range is automatic",
    "Sweep steps (WV) not found": "it wants a sweep set up first",
    "expected string or bytes-like object": "it takes an object for a text",
    "unhashable type": "it looks a list up in a table",
}
"""What an error text tells, in words of the table: a sign of it, the words."""
NOT_CALLED = frozenset(
    {
        "ask_for_values",  # the plumbing of PyMeasure
        "close",
        "connect_message",
        "device_clear",
        "exit",
        "factory_reset",
        "print_readable_snapshot",
        "read",
        "read_binary_values",
        "read_bytes",
        "reboot",
        "wait_for_srq",
        "wait_for_srq_event",
    }
)
"""Methods that read without asking, end the connection or wait for what nobody sends."""


@dataclass
class Count:
    """What one program did with one model: names that passed, names that did not and why, names
    that were not tried.
    """

    program: str
    model: str
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    untried: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        """Its row of the table."""
        tried = len(self.passed) + len(self.failed)
        reasons = Counter(self.failed.values()).most_common(3)
        why = "; ".join(f"{reason} ({n})" for reason, n in reasons) or "-"
        cells = (self.program, self.model, f"{len(self.passed)} of {tried}", len(self.untried), why)
        return f"| {' | '.join(map(str, cells))} |"


class Bench:
    """A simulated instrument alone on a port."""

    def __init__(self, kind: str, model: str) -> None:
        self.simulator: Any = Family.of(kind).simulator(
            model, Place(terminals=Loads(LOAD_OHM), serial="4012345")
        )
        self.server = InstrumentServer(self.simulator, Timing())
        self.sync: Callable[[], object] = lambda: None
        """Asks the instrument something: it has acted then on what was sent before."""

        self.fill: Callable[[], object] = lambda: None
        """Puts a reading into its buffer."""

    def trial(self, count: Count, name: str, act: Callable[[], Any]) -> Any:
        """Do one thing and count it; what it gave, None where it failed."""
        self._errors()
        given: Any = None
        why = ""
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = act()
                if name.endswith(("=", "()")):
                    self.sync()
        except Exception as error:  # whatever a program raises is what is counted
            why = reason(error)
        why = self._errors() or why
        if why:
            count.failed[name] = why
            return None
        count.passed.append(name)
        return given

    def _errors(self) -> str:
        """The first error of the instrument's queue, which is empty then."""
        unit = self.simulator
        with unit.place.bus.lock:
            if getattr(unit, "language", "") == "TSP":
                unit = unit.tsp
            queue = getattr(unit, "queue", None) or getattr(unit, "errors", [])
            first = str(getattr(queue[0], "text", queue[0])) if queue else ""
            if queue:
                queue.clear()
        return shortened(first)


def shortened(text: str) -> str:
    """An error in few words, places and values left out."""
    for known, words in KNOWN.items():
        if known in text:
            return words
    plain = re.sub(r"TSP Runtime error at line \d+: ", "", text).split("\n")[0]
    return plain[:60].replace("|", "/")


def reason(error: BaseException) -> str:
    """Why something did not work, in few words."""
    text = f"{type(error).__name__}: {error}"
    if "VI_ERROR_TMO" in text or "Timeout" in text:
        return "no reply"
    return shortened(text)


def needs_arguments(function: Callable[..., Any]) -> bool:
    """Whether it cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )


def call_all(bench: Bench, count: Count, methods: dict[str, Callable[..., Any]]) -> None:
    """Call what needs no argument; what ends things comes last."""
    ordered = sorted(methods, key=lambda name: (name.rpartition(".")[2] in LAST, name))
    for name in ordered:
        if name.rpartition(".")[2] in NOT_CALLED:
            continue
        if needs_arguments(methods[name]):
            count.untried.append(name)
        else:
            bench.trial(count, f"{name}()", methods[name])


# PyMeasure


def pymeasure(kind: str, model: str, name: str) -> Count:
    """Properties and methods of a PyMeasure driver and of its channels."""
    count = Count("PyMeasure", model)
    bench = Bench(kind, model)
    module = importlib.import_module(
        "pymeasure.instruments." + ("keithley" if name.startswith("Keith") else "agilent")
    )
    endings = {"read_termination": "\n", "write_termination": "\n"}
    if kind == "keysight-b1500":
        endings = {}  # it sets its own
    device: Any = None
    try:
        device = bench.trial(
            count,
            name,
            lambda: getattr(module, name)(
                bench.server.resource, visa_library="@py", timeout=TIMEOUT_S * 1e3, **endings
            ),
        )
        if device is not None:
            bench.sync = lambda: device.ask("*STB?")
            for prefix, part in _pymeasure_parts(device):
                _pymeasure_part(bench, count, prefix, part)
    finally:
        if device is not None:
            device.adapter.connection.close()
        bench.server.stop()
    return count


def _pymeasure_parts(device: Any) -> Iterator[tuple[str, Any]]:
    yield "", device
    for name, part in vars(device).items():
        module = type(part).__module__
        if not name.startswith("_") and module == type(device).__module__:
            yield f"{name}.", part


def _pymeasure_part(bench: Bench, count: Count, prefix: str, part: Any) -> None:
    methods: dict[str, Callable[..., Any]] = {}
    for name in dir(type(part)):
        member = inspect.getattr_static(type(part), name)
        owner = next(c for c in type(part).__mro__ if name in vars(c))
        if name.startswith("_") or owner.__module__.startswith(
            ("pymeasure.instruments.instrument", "pymeasure.instruments.common", "builtins")
        ):
            continue
        if isinstance(member, property):
            value = None
            if member.fget is not None:
                value = bench.trial(count, prefix + name, lambda n=name: getattr(part, n))
            if member.fset is not None and value is not None:
                _put_back(bench, count, part, f"{prefix}{name} =", name, value)
        elif inspect.isfunction(member):
            methods[prefix + name] = getattr(part, name)
    call_all(bench, count, methods)


def _put_back(bench: Bench, count: Count, part: Any, full: str, name: str, value: Any) -> None:
    """Set what was read, where it can be set: PyMeasure knows that only when it is tried."""
    bench.trial(count, full, lambda: setattr(part, name, value))
    if "can not be set" in count.failed.get(full, ""):
        del count.failed[full]


# QCoDeS


def qcodes(kind: str, model: str, name: str) -> Count:
    """Parameters and methods of a QCoDeS driver and of its submodules."""
    count = Count("QCoDeS", model)
    bench = Bench(kind, model)
    maker = "Keithley" if name.startswith("Keith") else "Keysight"
    module = importlib.import_module(f"qcodes.instrument_drivers.{maker}")
    ending = "\r\n" if kind == "keysight-b1500" else "\n"
    device: Any = None
    try:
        device = bench.trial(
            count,
            name,
            lambda: getattr(module, name)(
                f"real_{re.sub(r'[^A-Za-z0-9]', '_', model)}",
                bench.server.resource,
                visalib="@py",
                terminator=ending,
                timeout=TIMEOUT_S,
            ),
        )
        if device is not None:
            bench.sync = lambda: device.ask_raw("*STB?")
            for output in ("output", "output_enabled"):  # else it refuses to measure
                if output in device.parameters:
                    with contextlib.suppress(Exception):
                        device.parameters[output].set(1)
            _qcodes_part(bench, count, "", device, set())
    finally:
        if device is not None:
            device.close()
        bench.server.stop()
    return count


def _qcodes_part(bench: Bench, count: Count, prefix: str, part: Any, seen: set[int]) -> None:
    if id(part) in seen:
        return
    seen.add(id(part))
    for name, parameter in list(part.parameters.items()):
        value = None
        if parameter.gettable:
            value = bench.trial(count, prefix + name, parameter.get)
        if parameter.settable and value is not None and name != "timeout":
            bench.trial(count, f"{prefix}{name} =", lambda p=parameter, v=value: p.set(v))
    for name, inner in list(part.submodules.items()):
        is_list = isinstance(inner, list | tuple) or hasattr(inner, "_channels")
        members = list(inner) if is_list else [inner]
        for at, each in enumerate(members):
            if hasattr(each, "parameters"):
                at_text = f"[{at}]" if len(members) > 1 else ""
                _qcodes_part(bench, count, f"{prefix}{name}{at_text}.", each, seen)
    methods = {
        prefix + name: getattr(part, name)
        for name in dir(type(part))
        if not name.startswith("_")
        and inspect.isfunction(inspect.getattr_static(type(part), name))
        and next(c for c in type(part).__mro__ if name in vars(c)).__module__.startswith(
            "qcodes.instrument_drivers"
        )
    }
    call_all(bench, count, methods)


# tm_devices


def tm_devices(kind: str, model: str, name: str) -> Count:
    """The command tree of a tm_devices driver; `name` is the kind of device there."""
    count = Count("tm_devices", model)
    bench = Bench(kind, model)
    if kind == "keithley-2450":  # the command set whose commands it knows
        bench.simulator.language = "TSP"
    # It would write into a folder of the place where it runs.
    importlib.import_module("tm_devices.helpers").configure_logging(
        log_console_level="NONE", log_file_level="NONE", log_uncaught_exceptions=False
    )
    manager: Any = importlib.import_module("tm_devices").DeviceManager(verbose=False)
    manager.visa_library = "@py"
    try:
        device = bench.trial(
            count,
            f"add_{name}",
            lambda: getattr(manager, f"add_{name}")(
                "127.0.0.1", connection_type="SOCKET", port=bench.server.port
            ),
        )
        if device is not None:
            device.visa_timeout = int(TIMEOUT_S * 1e3)
            bench.sync = lambda: device.query("*STB?")
            buffer, readings = BUFFERS.get(kind, ("", ""))
            if readings:
                bench.fill = lambda: device.write(readings)
                bench.fill()
            if bench.trial(count, "commands", lambda: device.commands) is not None:
                _tree(bench, count, "", device.commands, buffer)
            for method in ("get_errors", "reset"):
                bench.trial(count, f"{method}()", getattr(device, method))
    finally:
        with contextlib.suppress(Exception):
            manager.close()
        bench.server.stop()
    return count


BUFFERS = {
    "keithley-2600b": (
        "smua.nvbuffer1",
        "smua.nvbuffer1.collectsourcevalues = 1 smua.measure.v(smua.nvbuffer1)",
    ),
    "keithley-2450": ("defbuffer1", "smu.measure.read(defbuffer1)"),
}
"""A reading buffer of each kind, and what puts a reading into it."""


def _tree(bench: Bench, count: Count, prefix: str, node: Any, buffer: str) -> None:
    """A node of a command tree: properties and methods, and nodes below it."""
    methods: dict[str, Callable[..., Any]] = {}
    for name in dir(type(node)):
        member = inspect.getattr_static(type(node), name)
        if name.startswith("_") or name in ("cmd_syntax", "verify"):
            continue
        if inspect.isfunction(member):
            if name != "write" or not needs_arguments(getattr(node, name)):
                methods[prefix + name] = getattr(node, name)
        elif not name.isupper():
            _member(bench, count, prefix, node, (name, member), buffer)
    call_all(bench, count, methods)


def _member(
    bench: Bench, count: Count, prefix: str, node: Any, named: tuple[str, Any], buffer: str
) -> None:
    """One property of a node: a value, or a node below it."""
    name, member = named
    scratch = Count("", "")
    value = bench.trial(scratch, name, lambda: getattr(node, name))
    key = {"smu": "a", "buffer_var": buffer}.get(name, 1)
    if type(value).__name__ == "DefaultDictPassKeyToFactory":
        if name not in ("script_var", "node"):
            _tree(bench, count, f"{prefix}{name}[{key}].", value[key], buffer)
    elif type(value).__module__.startswith("tm_devices.commands"):
        if type(value).__name__.startswith("DefaultDict"):
            bench.trial(count, f"{prefix}{name}[1]", lambda: value[1])
        else:
            _tree(bench, count, f"{prefix}{name}.", value, buffer)
    else:
        count.passed += [prefix + each for each in scratch.passed]
        count.failed |= {prefix + each: why for each, why in scratch.failed.items()}
        if getattr(member, "fset", None) is not None and value is not None:
            bench.trial(count, f"{prefix}{name} =", lambda: setattr(node, name, value))
            if prefix.startswith("buffer_var"):  # some settings empty it
                bench.fill()


# keithley2600


def keithley2600(kind: str, model: str, _: str) -> Count:
    """Every attribute of the instrument that keithley2600 finds, and its own methods."""
    count = Count("keithley2600", model)
    bench = Bench(kind, model)
    program: Any = importlib.import_module("keithley2600.keithley_driver")
    device = program.Keithley2600(bench.server.resource, timeout=TIMEOUT_S * 1e3)
    bench.sync = lambda: device._query("1")
    try:
        _found(bench, count, program, "", device, 0)
        smu = device.smua
        own: dict[str, Callable[[], Any]] = {
            "smua.reset": smu.reset,
            "apply_voltage": lambda: device.apply_voltage(smu, 0.5),
            "measure_voltage": lambda: device.measure_voltage(smu),
            "measure_current": lambda: device.measure_current(smu),
            "apply_current": lambda: device.apply_current(smu, 1e-6),
            "set_integration_time": lambda: device.set_integration_time(smu, 1e-3),
            "ramp_to_voltage": lambda: device.ramp_to_voltage(smu, 0.2, 0.0, 0.1),
            "read_buffer": lambda: device.read_buffer(smu.nvbuffer1),
            "read_error_queue": device.read_error_queue,
            "play_chord": device.play_chord,
            "reset": device.reset,
        }
        for name, act in own.items():
            bench.trial(count, f"{name}()", act)
    finally:
        device.disconnect()
        bench.server.stop()
    return count


def _found(bench: Bench, count: Count, program: Any, prefix: str, node: Any, depth: int) -> None:
    node._load_lua_namespace()  # what it knows of a table is nowhere else
    for name, each in list(node._dict.items()):
        full = f"{prefix}{name}" if isinstance(name, str) else f"{prefix[:-1]}[{name}]"
        if isinstance(each, program.KeithleyProperty):
            value = bench.trial(count, full, each.get)
            if value is not None and not each._readonly and isinstance(value, int | float):
                bench.trial(count, f"{full} =", lambda e=each, v=value: e.set(v))
        elif isinstance(each, program.KeithleyFunction):
            count.untried.append(full)
        elif name not in ("_G", "mt", "script", "smub") and depth < 4:
            _found(bench, count, program, f"{full}.", each, depth + 1)


SERIES_2600B = (
    "2601B",
    "2602B",
    "2604B",
    "2611B",
    "2612B",
    "2614B",
    "2634B",
    "2635B",
    "2636B",
)
PROGRAMS: dict[tuple[str, str], tuple[Callable[[str, str, str], Count], str, str]] = {
    **{
        ("keithley2600", model): (keithley2600, "keithley-2600b", "")
        for model in ("2602B", "2614B", "2636B")
    },
    ("PyMeasure", "2400"): (pymeasure, "keithley-2400", "Keithley2400"),
    ("PyMeasure", "2450"): (pymeasure, "keithley-2450", "Keithley2450"),
    ("PyMeasure", "2602B"): (pymeasure, "keithley-2600b", "Keithley2600"),
    ("PyMeasure", "2636B"): (pymeasure, "keithley-2600b", "Keithley2600"),
    ("PyMeasure", "2636A"): (pymeasure, "keithley-2600b", "Keithley2600"),
    ("PyMeasure", "B1500A"): (pymeasure, "keysight-b1500", "AgilentB1500"),
    ("PyMeasure", "33522B"): (pymeasure, "keysight-33500", "Agilent33500"),
    ("QCoDeS", "2400"): (qcodes, "keithley-2400", "Keithley2400"),
    ("QCoDeS", "2450"): (qcodes, "keithley-2450", "Keithley2450"),
    **{("QCoDeS", model): (qcodes, "keithley-2600b", f"Keithley{model}") for model in SERIES_2600B},
    ("QCoDeS", "2602A"): (qcodes, "keithley-2600b", "Keithley2602A"),
    ("QCoDeS", "3706A"): (qcodes, "keithley-3706a", "Keithley3706A"),
    ("QCoDeS", "B1500A"): (qcodes, "keysight-b1500", "KeysightB1500"),
    **{
        ("QCoDeS", model): (qcodes, "keysight-33500", f"Keysight{model}")
        for model in ("33511B", "33512B", "33522B", "33611A", "33622A")
    },
    **{
        ("tm_devices", model): (tm_devices, "keithley-2400", "smu")
        for model in ("2400", "2401", "2410")
    },
    **{
        ("tm_devices", model): (tm_devices, "keithley-2450", "smu")
        for model in ("2450", "2460", "2461", "2470")
    },
    **{
        ("tm_devices", model): (tm_devices, "keithley-2600b", "smu")
        for model in (*SERIES_2600B, "2602A", "2612A", "2636A")
    },
    ("tm_devices", "3706A"): (tm_devices, "keithley-3706a", "ss"),
}
"""(program, model) -> how it is counted, the kind of instrument, its class or kind there."""


def counted(program: str, model: str) -> Count:
    """What a program does with a model."""
    count, kind, name = PROGRAMS[program, model]
    return count(kind, model, name)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", help="keithley2600, PyMeasure, QCoDeS, tm_devices")
    parser.add_argument("--models", nargs="*", default=[], help="only these models")
    parser.add_argument("--why", action="store_true", help="each name that does not pass")
    asked = parser.parse_args()
    print("| program | model | pass | not tried | why not |\n|---|---|---|---|---|", flush=True)
    for program, model in PROGRAMS:
        if asked.programs and program not in asked.programs:
            continue
        if asked.models and model not in asked.models:
            continue
        count = counted(program, model)
        print(count.row, flush=True)
        if asked.why:
            for name, why in count.failed.items():
                print(f"    {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
