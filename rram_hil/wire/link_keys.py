"""The keys of a bench file that say how an instrument is reached: one set, with the same names in
every driver's and every instrument's table.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rram_hil.units import Seconds, Unit
from rram_hil.validation import StrictModel

SERIAL_KEYS = ("baud", "parity", "data_bits", "stop_bits", "flow_control")
"""Keys that only a serial line has."""
OF_THE_HARDWARE = frozenset(
    {*SERIAL_KEYS, "resource", "port", "gpib_address", "visa_library", "serial"}
)
"""Keys that say where the real instrument is, and which: what stands in for it has none of them."""
_PARITIES = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}
_FLOWS: dict[str, dict[str, bool]] = {
    "none": {},
    "xon-xoff": {"xonxoff": True},
    "rts-cts": {"rtscts": True},
    "dsr-dtr": {"dsrdtr": True},
}


class LinkKeys(StrictModel):
    """How one instrument or board is reached. Keys that cannot apply to what it is reached by are
    refused, with the line to write instead.
    """

    ADDRESS: ClassVar[str] = "resource"
    """The key that the address is kept in; the other of `resource` and `port` is taken for it."""

    resource: str = Field(default="", description="VISA resource, serial port or URL")
    port: str = Field(default="", description="the same, by another name")
    timeout_s: Annotated[Seconds, Field(ge=0.05, le=60)] = Field(
        default=2.0, description="longest silence beyond the work"
    )
    reconnect_s: Annotated[Seconds, Field(ge=0, le=600)] = Field(
        default=10.0,
        description="how long a link that is gone is waited for: USB takes seconds to return",
    )
    baud: Annotated[int, Unit("Bd"), Field(ge=300)] = Field(
        default=9600, description="line rate, serial only"
    )
    parity: Literal["none", "even", "odd", "mark", "space"] = Field(
        default="none", description="parity bit, serial only"
    )
    data_bits: Literal[7, 8] = Field(default=8, description="bits of a character, serial only")
    stop_bits: Literal[1, 2] = Field(default=1, description="stop bits, serial only")
    flow_control: Literal["none", "xon-xoff", "rts-cts", "dsr-dtr"] = Field(
        default="none", description="how a full buffer says so, serial only"
    )
    gpib_address: Annotated[int, Field(ge=0, le=30)] | None = Field(
        default=None,
        description=(
            "the instrument's GPIB address behind a Prologix or AR488 adapter, which the address"
            " then names"
        ),
    )
    visa_library: str = Field(
        default="",
        description=(
            'VISA library: a path, "@ivi" for the one installed (NI, Keysight), "@py" for'
            " pyvisa-py; empty: PYVISA_LIBRARY of the environment, else pyvisa-py"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _one_address(cls, given: Any) -> Any:
        """`resource` and `port` are the same key."""
        other = "port" if cls.ADDRESS == "resource" else "resource"
        if isinstance(given, dict) and given.get(other):
            if given.get(cls.ADDRESS):
                raise ValueError(f"{cls.ADDRESS} and {other} say the same: give one of them")
            given = {k: v for k, v in given.items() if k != other} | {cls.ADDRESS: given[other]}
        return given

    @model_validator(mode="after")
    def _keys_apply(self) -> LinkKeys:
        address = self.address
        kind = address.upper().partition("::")[0].rstrip("0123456789")
        is_visa = "::" in address
        if is_visa and not kind.startswith("ASRL"):
            for key in SERIAL_KEYS:
                if key in self.model_fields_set:
                    raise ValueError(
                        f"{key}: {address} is no serial line; delete `{key}`, or give the serial"
                        f' port: `{self.ADDRESS} = "COM3"` or `"/dev/ttyUSB0"`'
                    )
        if self.gpib_address is not None and kind in ("GPIB", "USB"):
            raise ValueError(
                f"gpib_address: {address} has its address already, as"
                f" `GPIB0::{self.gpib_address}::INSTR` has; delete `gpib_address`, or give the"
                f' adapter: `{self.ADDRESS} = "/dev/ttyUSB0"` or'
                ' `"TCPIP::192.168.1.5::1234::SOCKET"`'
            )
        if self.visa_library and address and not is_visa:
            raise ValueError(
                f"visa_library: {address} is opened without VISA; delete `visa_library`, or write"
                f' `{self.ADDRESS} = "ASRL{address}::INSTR"`'
            )
        return self

    @property
    def address(self) -> str:
        """The address, by whichever key it was given."""
        return str(getattr(self, self.ADDRESS))

    def link_settings(self) -> dict[str, Any]:
        """What `rram_hil.wire.open_link.make_link` takes beside the address; what is as usual is
        left out.
        """
        settings: dict[str, Any] = {"baud": self.baud}
        usual: dict[str, tuple[Any, Any]] = {
            "parity": (_PARITIES[self.parity], "N"),
            "bytesize": (self.data_bits, 8),
            "stopbits": (self.stop_bits, 1),
            "gpib_address": (self.gpib_address, None),
            "visa_library": (self.visa_library, ""),
        }
        settings |= {key: value for key, (value, default) in usual.items() if value != default}
        return settings | _FLOWS[self.flow_control]
