"""What one reading costs beside a raw `*IDN?` of the same session: configured channel to value,
over loopback, the conversion itself taking no time.

Each source-meter is connected, configured and switched on against its simulator. One reading and
one `*IDN?` are then taught to a process that answers the same bytes at once: what is timed is the
host's part and the wire, in turns, medians. Beside it the same through the simulator, whose own
work then counts.

    python benchmarks/one_reading.py [--rounds N] [MODEL ...]
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable

from rram_hil.bench.standalone import start_model
from rram_hil.hardware.instrument import Function, SourceMeter, SourceSetup, make_instrument

SETUP = SourceSetup(Function.VOLTAGE, compliance=1e-3, source_range=2.0, measure_range=1e-3)
MODELS = {
    "2400": "keithley-2400",
    "2450": "keithley-2450",
    "2636B": "keithley-2600b",
    "B2902A": "keysight-b2900",
    "B1500A": "keysight-b1500",
}
QUESTION = "*IDN?"


def answer(known: dict[bytes, bytes], port: multiprocessing.Queue[int]) -> None:
    """Answer each known message at once, for one client."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port.put(server.getsockname()[1])
        client, _ = server.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        got = b""
        while data := client.recv(1 << 16):
            got += data
            if got in known:
                client.sendall(known[got])
                got = b""


def taught(meter: SourceMeter, work: Callable[[], object]) -> dict[bytes, bytes]:
    """What a piece of work sends, and all that came back."""
    link = meter.dialog.link
    sent, received = bytearray(), bytearray()
    send, receive = link.send, link.receive

    def sending(data: bytes) -> None:
        sent.extend(data)
        send(data)

    def receiving(*arguments: object) -> bytes:
        data = receive(*arguments)  # type: ignore[arg-type]
        received.extend(data)
        return data

    link.send, link.receive = sending, receiving  # type: ignore[method-assign]
    try:
        work()
    finally:
        link.send, link.receive = send, receive  # type: ignore[method-assign]
    return {bytes(sent): bytes(received)}


def medians(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each piece of work, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def reading(model: str, rounds: int) -> None:
    """One line of the table."""
    far_side = start_model(model, load_ohm=1e4)
    resource = far_side.instruments[0][2]
    meter = make_instrument({"kind": MODELS[model], "resource": resource}, "meter")
    assert isinstance(meter, SourceMeter)
    meter.connect()
    meter.arm()
    channel = meter.channels[0]
    meter.configure(channel, SETUP)
    meter.source(channel, 0.2)
    meter.output(channel, True)
    works: dict[str, Callable[[], object]] = {
        "reading": lambda: meter.measure(channel),
        "question": lambda: meter.dialog.query(QUESTION),
    }
    simulated = medians(works, rounds)
    known = {key: reply for work in works.values() for key, reply in taught(meter, work).items()}
    port: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=answer, args=(known, port), daemon=True)
    process.start()
    meter.dialog.link.close()
    meter.dialog.link.resource = f"TCPIP::127.0.0.1::{port.get()}::SOCKET"
    meter.dialog.link.open()
    loopback = medians(works, rounds)
    meter.close()
    process.terminate()
    far_side.stop()
    print(
        f"{model:8s} {loopback['question'] * 1e6:9.0f} us {loopback['reading'] * 1e6:9.0f} us"
        f" {loopback['reading'] / loopback['question']:6.2f}"
        f" {simulated['reading'] / simulated['question']:22.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    options = parser.parse_args()
    print(
        f"{'model':8s} {QUESTION:>12s} {'reading':>12s} {'ratio':>6s} {'ratio by simulator':>22s}"
    )
    for model in options.models:
        reading(model, options.rounds)


if __name__ == "__main__":
    main()
