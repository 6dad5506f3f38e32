"""Gradient-descent programming: bring the products of an array, not its cells, to what they should
be.

Büchel et al., IEDM 2022 and JETCAS 2023: random vectors are multiplied by the array; what the
products lack, times the vectors, is the gradient of their squared error to each weight; where that
says enough, a cell gets a pulse; and so on with fresh vectors. No cell is read by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rram_hil.array import Cells, Multiply, Program, Scheme, pulse
from rram_hil.engine.protocol import (
    Arrays,
    Compute,
    Do,
    Plan,
    Progress,
    Protocol,
    Save,
    Setting,
    Unselected,
)
from rram_hil.errors import ConfigError
from rram_hil.networks.mapping import Block, Mapping
from rram_hil.networks.programmed_network import Programmed
from rram_hil.report.section import Axis, Line, Plot, Section
from rram_hil.report.step import RunStep
from rram_hil.types import FloatArray, IntArray
from rram_hil.units import Siemens
from rram_hil.validation import PositiveAmperes

from .parts.characterisation import save_map
from .parts.pulses import Pulses
from .parts.sections import programmed_plots
from .parts.targets import Targets, load_targets, partners, save_targets, target_files

_MOST_WIDENED = 16


@dataclass(frozen=True)
class GradientSummary:
    """Cells that were programmed, rounds of pulses, pulses in all and a cell, and the vectors that
    each block's cells were multiplied by, added up over the blocks.

    `error_before` and `error_after` are the root mean square error of the products over that of the
    products wanted, of plus less minus cells, known stuck ones included. `out_of_pulses` cells had
    spent their budget; `saturated` ADC codes were clipped and measured again in a wider range.
    `emulated` is true where the bench has no multiply and single reads stood in.
    """

    cells: int
    rounds: int
    pulses: int
    mean_pulses: float
    vectors: int
    error_before: float
    error_after: float
    out_of_pulses: int
    saturated: int
    emulated: bool


class GradientProgramming(Protocol[GradientSummary]):
    """Multiply by random vectors, and pulse the cells that the error of the products blames, for at
    most `rounds` rounds (gradient-descent programming).

    A round multiplies every block of the network by `vectors` random vectors of full-scale inputs
    of either sign. The mean of error times input is each cell's missing conductance, with a
    standard error that the error itself tells; so is that of each weight, plus less minus cell. The
    means of all rounds since the cells' last pulses are taken together. A weight takes a pulse
    where it lacks more than `sure` of its standard errors and than the tolerance, the larger of
    `tolerance_s` and `tolerance` x the larger target: SET or RESET, on the cell of the pair that
    lacks more of what the weight does, or on the other where that one is stuck or spent. A target
    at or below `lowest_s` takes no SET pulse, and a RESET pulse only above `lowest_s` + tolerance.
    `targets`, `tag`, `set`, `reset` and `max_pulses` are those of write-verify: a cell's next pulse
    of the same polarity is the next of its ramp. With 0 `rounds` the products are measured and
    nothing is pulsed.
    """

    targets: Targets | None = None
    tag: str = "network"
    rounds: Annotated[int, Field(ge=0, le=10_000)] = 60
    vectors: Annotated[int, Field(ge=2, le=1 << 16)] = 512
    sure: Annotated[float, Field(ge=0)] = 3.0
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    tolerance_s: Annotated[Siemens, Field(ge=0)] = 1e-6
    lowest_s: Annotated[Siemens, Field(ge=0)] = 0.0
    set: Pulses
    reset: Pulses
    max_pulses: Annotated[int, Field(ge=1)] = 30
    input_bits: Annotated[int, Field(ge=2, le=16)] = 8
    margin: Annotated[float, Field(gt=0)] = 1.5
    unselected: Unselected = "inhibit"
    compliance_a: PositiveAmperes | None = None

    def input_files(self) -> tuple[str, ...]:
        """The file of its targets."""
        return target_files(self.targets)

    def run(self, setting: Setting) -> Plan[GradientSummary]:
        """Yields one computation that multiplies and up to two batches of pulses a round, and one
        more computation at the end.
        """
        if self.targets is None:
            programmed = setting.shared_by(self.tag, Programmed)
        else:
            programmed = load_targets(self.targets, setting)
        mapping = programmed.mapping
        if not mapping.layers:
            raise ConfigError(
                "gradient-programming: a bare map of targets has no products; give a network, or"
                " use write-verify"
            )
        worth = programmed.responsive.ravel()[mapping.cells.index(mapping.geometry)]
        progress = _State(self, mapping, worth, setting)
        progress.require(setting)
        if self.targets is not None:
            setting.share(self.tag, programmed)
        yield from save_targets(programmed)
        rounds = 0
        while True:
            yield Progress(rounds, self.rounds, f"multiplying by {self.vectors} vectors a block")
            yield from progress.measure(rounds)
            at = progress.due() if rounds < self.rounds else np.zeros(0, dtype=np.int64)
            if not at.size:
                break
            yield Progress(rounds, self.rounds, f"pulsing {at.size} cells")
            for polarity in (1, -1):
                yield from progress.give(at, polarity)
            rounds += 1
        return (yield from progress.told(rounds, setting))

    @classmethod
    def section(cls, step: RunStep) -> Section | None:
        """Error of the products round by round and against pulses, and the cells that the next step
        to read a map found.
        """
        error, pulses = step.values("product_error"), step.values("pulses_before_round")
        y = Axis("relative rms error of products", "", log=True)
        rounds = Line(np.arange(error.size, dtype=np.float64), error, look="both")
        plots = [
            Plot("Error of the products", Axis("rounds of pulses"), y, (rounds,)),
            Plot(
                "Error against pulses",
                Axis("pulses, all cells"),
                y,
                (Line(pulses, error, look="both"),),
            ),
        ]
        target, found = step.map("target"), step.map_after("conductance")
        if target is not None and found is not None:
            plots += programmed_plots(target, found, "as the next step read it", step)
        return Section("", tuple(plots))


class _State:
    """What is known of each cell in use, arrays of shape (n,) in the order of the mapping's cells,
    and of the products of each round.
    """

    def __init__(
        self,
        asked: GradientProgramming,
        mapping: Mapping,
        worth: NDArray[np.bool_],
        setting: Setting,
    ) -> None:
        self._asked, self._mapping, self._worth, self._setting = asked, mapping, worth, setting
        self._cells, self._target = mapping.cells, mapping.target_s
        n = len(self._cells)
        self._sets = asked.set.train(self._target, setting)
        self._resets = asked.reset.train(self._target, setting)
        self._blocks = [block for layer in mapping.layers for block in layer.blocks]
        self._pulses: dict[int, IntArray] = {
            polarity: np.zeros(n, dtype=np.int64) for polarity in (1, -1)
        }
        self._partner = partners(mapping)
        self._ramp = np.zeros(n, dtype=np.int64)
        self._polarity = np.zeros(n, dtype=np.int64)
        # The weighted mean of what a cell lacks since its last pulse: weights, and weighted sums.
        self._weight, self._lacking = np.zeros(n), np.zeros(n)
        self._widened = np.zeros(len(self._blocks), dtype=np.int64)
        self._errors: list[float] = []
        self._spent: list[int] = []
        self._vectors = self._saturated = 0
        self._emulated = False
        gate = setting.read.levels("wl", 1)
        self._read_v = float(np.abs(setting.read.cell_v(1)[0]))
        self._wl_v = 0.0 if gate is None else float(gate[0])
        self._beside = setting.read.body_v, setting.read.unselected_wl_v

    def require(self, setting: Setting) -> None:
        """Refuse what limits or the bench forbid before anything has moved."""
        asked = self._asked
        at = np.flatnonzero(self._worth)
        pulses = Program(
            self._cells[at],
            self._target[at],
            self._target[at],
            self._sets.part(at),
            self._resets.part(at),
            setting.read.without_gate(),
            asked.max_pulses,
            unselected=Scheme(asked.unselected),
            compliance_a=asked.compliance_a,
            on_board="never",
            label="gradient-programming",
        )
        inputs = np.zeros((1, self._blocks[0].inputs), dtype=np.int16)
        setting.require(pulses, self._multiply(self._blocks[0], inputs, 1e-6))

    def _multiply(self, block: Block, inputs: NDArray[np.int16], full_scale_a: float) -> Multiply:
        body_v, unselected_wl_v = self._beside
        return Multiply(
            block.tile,
            block.row,
            block.column,
            2 * block.outputs,
            inputs,
            self._asked.input_bits,
            self._read_v,
            self._wl_v,
            full_scale_a,
            label="gradient-programming",
            body_v=body_v,
            unselected_wl_v=unselected_wl_v,
        )

    def measure(self, number: int) -> Plan[None]:
        """Multiply once more by random vectors, and add what they say to what is known."""
        found = yield from Compute(f"products {number}", lambda do: self._products(number, do))
        self._widened = found["widened"]
        whole = max(float(found["square_wanted"]), np.finfo(np.float64).tiny)
        self._errors.append(float(np.sqrt(found["square_error"] / whole)))
        self._spent.append(int(self._given.sum()))
        self._vectors += int(found["vectors"])
        self._saturated += int(found["saturated"])
        self._emulated |= bool(found["emulated"])
        weight = 1 / np.maximum(self._spread(found["error_s"]), 1e-12) ** 2
        self._weight += weight
        self._lacking += weight * found["lacking_s"]

    def _products(self, number: int, do: Do) -> Arrays:
        """Of one round: what each cell lacks (S), the standard error of that in each column of each
        block (S), squares of what the products lack and should be, and what it took.
        """
        rng = self._setting.rng(f"vectors {number}")
        top = (1 << (self._asked.input_bits - 1)) - 1
        count = self._asked.vectors
        lacking = np.zeros(self._mapping.geometry.shape, dtype=np.float32)
        errors = []
        widened = self._widened.copy()
        squares = np.zeros(2)
        vectors, saturated, emulated = 0, 0, False
        for k, block in enumerate(self._blocks):
            signs = rng.integers(0, 2, (count, block.inputs)) * 2 - 1
            wanted = signs @ (self._mapping.target_map_s[block.place] * self._read_v)
            scale_a = max(self._asked.margin * float(np.abs(wanted).max()), 1e-9)
            while True:
                inputs = (signs * top).astype(np.int16)
                answer = do(self._multiply(block, inputs, scale_a * 2.0 ** widened[k]))
                vectors += count
                emulated |= answer.emulated
                # Far from their targets, cells pass more than a range for the wanted products.
                if not answer.saturated or widened[k] == _MOST_WIDENED:
                    break
                saturated += answer.saturated
                widened[k] += 1
            missing = wanted - answer.codes * answer.lsb_a
            lacking[block.place] = signs.T @ missing / (count * self._read_v)
            errors.append(np.sqrt(np.mean(np.square(missing), axis=0) / count) / self._read_v)
            for j, currents in enumerate((missing, wanted)):
                squares[j] += float(np.sum(np.square(currents[:, 0::2] - currents[:, 1::2])))
        return {
            "lacking_s": lacking.ravel()[self._cells.index(self._mapping.geometry)],
            "error_s": np.concatenate(errors),
            "widened": widened,
            "square_error": squares[0],
            "square_wanted": squares[1],
            "vectors": np.array(vectors),
            "saturated": np.array(saturated),
            "emulated": np.array(emulated),
        }

    def _spread(self, of_columns: FloatArray) -> FloatArray:
        """What each column of each block has in common, cell by cell, shape (n,)."""
        whole = np.zeros(self._mapping.geometry.shape)
        ends = np.cumsum([2 * block.outputs for block in self._blocks])
        for block, values in zip(self._blocks, np.split(of_columns, ends[:-1]), strict=True):
            whole[block.place] = values
        return whole.ravel()[self._cells.index(self._mapping.geometry)]

    @property
    def _given(self) -> IntArray:
        return self._pulses[1] + self._pulses[-1]

    def due(self) -> IntArray:
        """Positions of the cells that take a pulse now; notes which polarity each takes."""
        asked, target, partner = self._asked, self._target, self._partner
        lacking, variance = self._lacking / self._weight, 1 / self._weight
        missing = lacking - lacking[partner]
        tolerance = np.maximum(
            asked.tolerance * np.maximum(target, target[partner]), asked.tolerance_s
        )
        doubt = asked.sure * np.sqrt(variance + variance[partner])
        wanted = np.where(np.abs(missing) > np.maximum(tolerance, doubt), np.sign(missing), 0)
        wanted = wanted.astype(np.int64)
        is_low = target <= asked.lowest_s
        stays = is_low & ((wanted > 0) | (lacking > target - asked.lowest_s - tolerance))
        can = (wanted != 0) & ~stays & self._worth & (self._given < asked.max_pulses)
        share = np.where(can, wanted * lacking, -np.inf)
        first = np.arange(len(can)) < partner
        due = can & ((share > share[partner]) | ((share == share[partner]) & first))
        self._ramp[due & (wanted != self._polarity)] = 0
        self._polarity[due] = wanted[due]
        return np.flatnonzero(due)

    def give(self, at: IntArray, polarity: int) -> Plan[None]:
        """Pulse the cells at those of the positions `at` that are due for this polarity."""
        at = at[self._polarity[at] == polarity]
        if not at.size:
            return
        train = (self._sets if polarity > 0 else self._resets).part(at)
        ramp = self._ramp[at]
        amplitude, gate = train.amplitude_v.level(ramp), train.gate_v.level(ramp)
        zero = np.zeros(at.shape)
        bl, sl = (amplitude, zero) if polarity > 0 else (zero, amplitude)
        result = yield from pulse(
            self._cells[at],
            bl_v=np.broadcast_to(bl, at.shape),
            sl_v=np.broadcast_to(sl, at.shape),
            wl_v=np.broadcast_to(gate, at.shape),
            width_s=train.width_s,
            body_v=train.body_v,
            unselected_wl_v=train.unselected_wl_v,
            unselected=Scheme(self._asked.unselected),
            compliance_a=self._asked.compliance_a,
            label="gradient-programming",
        )
        # After an interruption those that were not reached have none, and stay due.
        self._pulses[polarity][at] += result.pulses
        taken = at[result.pulses > 0]
        self._ramp[taken] += 1
        self._weight[taken] = self._lacking[taken] = 0.0

    def told(self, rounds: int, setting: Setting) -> Plan[GradientSummary]:
        """Save what was done to each cell and the errors round by round; the summary."""
        cells: Cells = self._cells
        for name, polarity in (("set_pulses", 1), ("reset_pulses", -1)):
            yield save_map(name, cells, self._pulses[polarity], "", setting)
        yield Save("product_error", np.array(self._errors), ("round",))
        yield Save("pulses_before_round", np.array(self._spent), ("round",))
        worth, pulses = self._worth, int(self._given.sum())
        return GradientSummary(
            int(worth.sum()),
            rounds,
            pulses,
            pulses / max(int(worth.sum()), 1),
            self._vectors,
            self._errors[0],
            self._errors[-1],
            int(np.sum(worth & (self._given >= self._asked.max_pulses))),
            self._saturated,
            self._emulated,
        )
