"""What can go wrong on a simulated board's link, and what it does to frames."""

from __future__ import annotations

from ..server.control import Injected, LinkFault

ON_REQUEST = frozenset(
    {
        LinkFault.DROP_REQUEST,
        LinkFault.DELAY_REQUEST,
        LinkFault.DISCONNECT_REQUEST,
        LinkFault.REBOOT_BEFORE,
        LinkFault.LEFT_OVER,
        LinkFault.CRASH,
    }
)
ON_OPERATION = frozenset({LinkFault.REBOOT_DURING, LinkFault.REBOOT_AFTER, LinkFault.STUCK})
ON_REPLY = frozenset(
    {
        LinkFault.DROP_REPLY,
        LinkFault.CORRUPT_REPLY,
        LinkFault.HALF_REPLY,
        LinkFault.GARBAGE,
        LinkFault.DUPLICATE_REPLY,
        LinkFault.DELAY_REPLY,
        LinkFault.DISCONNECT_REPLY,
    }
)
BOARD_FAULTS = (
    ON_REQUEST | ON_OPERATION | ON_REPLY | {LinkFault.CORRUPT_REQUEST, LinkFault.WRONG_MODEL}
)
GARBAGE = bytes(range(256)) + bytes.fromhex("a552425a01108100ff") + b"\xa5RB" * 3


def flipped(data: bytes) -> bytes:
    """One bit of the last byte wrong: the frame CRC of the request that ends here."""
    return data[:-1] + bytes([data[-1] ^ 1])


def spoiled(frames: list[bytes], fault: Injected) -> list[bytes]:
    """The frames of a reply as they leave a bad link."""
    if fault.kind is LinkFault.GARBAGE:
        return [GARBAGE, *frames]
    if fault.kind is LinkFault.DUPLICATE_REPLY:
        return frames + frames
    last = frames[-1]
    if fault.kind is LinkFault.HALF_REPLY:
        return [*frames[:-1], last[: len(last) // 2]]
    if fault.kind is LinkFault.CORRUPT_REPLY:
        middle = len(last) // 2
        return [*frames[:-1], last[:middle] + bytes([last[middle] ^ 0x10]) + last[middle + 1 :]]
    return frames
