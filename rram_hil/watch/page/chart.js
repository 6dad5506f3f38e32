// Curves, drawn by uPlot.

import { colour, duration, quantity } from "./words.js";

const HEIGHT = 150;

function options(width, unit, lines, points) {
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] } },
    axes: [
      { ...axis, values: (_, places) => places.map((t) => duration(t)), space: 80, size: 30 },
      { ...axis, values: (_, places) => places.map((v) => quantity(v, unit)), size: 64, space: 32 },
    ],
    series: [
      {},
      ...lines.map((name) => ({
        stroke: colour(name),
        width: 2,
        points: { show: points, size: 6, fill: colour(name) },
        spanGaps: true,
      })),
    ],
  };
}

/** A chart in `place` that follows its width. `lines` are CSS variables with the lines' colours. */
export class Chart {
  constructor(place, unit, lines, points = false) {
    this.place = place;
    this.make = (width) => new uPlot(options(width, unit, lines, points), this.data, place);
    this.data = null;
    this.plot = null;
    new ResizeObserver(() => this.fit()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.again());
  }

  /** Show `data`: places on the x axis, then the values of each line. */
  show(data) {
    this.data = data;
    if (this.plot) this.plot.setData(data);
    else this.again();
  }

  again() {
    this.plot?.destroy();
    this.plot = null;
    const width = Math.floor(this.place.clientWidth);
    if (width > 0 && this.data) this.plot = this.make(width);
  }

  fit() {
    const width = Math.floor(this.place.clientWidth);
    if (!this.plot) this.again();
    else if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }
}
