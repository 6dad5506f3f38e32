// One run on the page.

import { Chart } from "./chart.js";
import { MapView } from "./map.js";
import { count, counted, duration, el, quantity, refill, say } from "./words.js";

const FINISHED = ["complete", "aborted", "error", "interrupted", "gone", "damaged"];
const BAD = ["error", "interrupted", "damaged"];

function utc(text) {
  return text ? `${text.slice(0, 19).replace("T", " ")} UTC` : "";
}

function pairs(rows) {
  return el("dl", { className: "pairs" }, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export class Card {
  constructor(key, onClose) {
    this.key = key;
    this.title = el("h2", {}, "…");
    this.badge = el("span", { className: "badge" });
    const close = el("button", { type: "button", className: "close" }, "hide");
    close.addEventListener("click", onClose);
    this.said = el("p", { className: "said", role: "status" });
    this.facts = el("p", { className: "soft" });
    this.figures = el("dl", { className: "figures" });
    this.steps = el("ol", { className: "steps" });
    this.stepsHead = el("h3", {}, "Steps");
    this.chartPlace = el("div", { className: "chart" });
    this.chart = new Chart(this.chartPlace, "/s", ["blue", "reads"]);
    this.clock = el("small");
    this.map = new MapView(key);
    this.notesHead = el("h3", {}, "Notes");
    this.notes = el("ul", { className: "notes" });
    this.bench = el("details", { className: "bench", open: "" }, el("summary", {}, "Bench and limits"));
    this.bench.addEventListener("toggle", () => this.showBench());
    const noteBox = el("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Notes of the run" }, this.notes);
    this.noteSection = el("section", {}, this.notesHead, noteBox);
    this.rateSection = el(
      "section", {},
      el("h3", {}, "Pulses and reads a second"),
      el(
        "p", { className: "legend" },
        el("small", {}, el("span", { className: "key pulses" }), "pulses"),
        el("small", {}, el("span", { className: "key reads" }), "reads"),
        this.clock,
      ),
      this.chartPlace,
    );
    this.body = el(
      "div", { className: "body", hidden: "" },
      el("div", { className: "column" }, this.figures, el("section", {}, this.stepsHead, this.steps), this.rateSection, this.bench),
      el("div", { className: "column" }, this.map.element, this.noteSection),
    );
    this.element = el(
      "article", { className: "card", "aria-label": "A run" },
      el("div", { className: "head" }, this.title, this.badge, close),
      this.facts, this.said, this.body,
    );
  }

  update(run) {
    this.element.dataset.frames = run ? run.frames : 0;
    if (!run) {
      say(this.title, "No longer here");
      return;
    }
    const { about, state } = run;
    say(this.title, about ? about.title : run.name);
    this.element.setAttribute("aria-label", `Run ${about ? about.title : run.name}`);
    say(this.badge, state === "interrupted" ? "ended without a word" : state);
    this.badge.className = `badge ${state.replace(" ", "-")}`;
    this.element.dataset.state = state;
    const behind = run.behind_bytes > 2 ** 20 ? ` Reading its journal: ${quantity(run.behind_bytes, "B")} to go.` : "";
    const waiting = state === "waiting" ? "It has not begun yet." : "";
    say(this.said, `${run.said}${waiting}${behind}`.trim());
    this.said.className = BAD.includes(state) ? "said bad" : "said";
    this.body.hidden = !about;
    if (!about) return;
    say(this.facts, this.about(run));
    this.showFigures(run);
    this.showSteps(run);
    say(this.clock, `over the bench clock${about.clock === "virtual" ? " (virtual)" : ""}`);
    this.rateSection.hidden = run.series.time_s.length < 2;
    if (!this.rateSection.hidden) this.chart.show([run.series.time_s, run.series.pulses, run.series.reads]);
    this.map.update(run.map);
    this.showNotes(run);
    this.showBench();
  }

  about({ about, name }) {
    const resumed = about.resumed ? `resumed ${counted(about.resumed, "time")}` : "";
    const parts = [
      `chip ${about.chip} (${about.size})`, about.instrument, about.operator, `began ${utc(about.started_utc)}`,
      about.ended_utc ? `ended ${utc(about.ended_utc)}` : "", resumed, name,
    ];
    return parts.filter(Boolean).join(" \u00b7 ");
  }

  showFigures({ totals, rate, about, state }) {
    const figure = (name, value, bad = false) => el("div", { className: bad ? "bad" : "" }, el("dt", {}, name), el("dd", {}, value));
    const live = !FINISHED.includes(state);
    refill(
      this.figures,
      figure("pulses", count(totals.pulses)),
      figure("reads", count(totals.reads)),
      ...(live ? [figure("pulses/s now", rate ? quantity(rate.pulses, "") : "-"), figure("reads/s now", rate ? quantity(rate.reads, "") : "-")] : []),
      ...(totals.vectors ? [figure("vectors multiplied", count(totals.vectors))] : []),
      figure("not ok", count(totals.not_ok), totals.not_ok > 0),
      figure("errors", count(totals.errors), totals.errors > 0),
      figure("bench time", duration(about.bench_s)),
    );
  }

  showSteps({ steps }) {
    const done = steps.filter((step) => step.word === "done").length;
    say(this.stepsHead, `Steps: ${done} of ${steps.length} done`);
    refill(this.steps, ...steps.map((step) => this.step(step)));
  }

  step(step) {
    const { counts } = step;
    const did = [
      counts.operations ? counted(counts.operations, "operation") : "",
      counts.pulses ? counted(counts.pulses, "pulse") : "",
      counts.reads ? counted(counts.reads, "read") : "",
      counts.vectors ? counted(counts.vectors, "vector") : "",
      counts.not_ok ? `${count(counts.not_ok)} not ok` : "",
      step.bench_s !== null ? `${duration(step.bench_s)} of bench time` : "",
    ].filter(Boolean).join(" \u00b7 ");
    const reach = [];
    if (step.done !== null) {
      // What comes back to cells that it has all reached is not done for that: it has no full bar.
      const rounds = step.done === step.total ? Math.round(step.times) : 0;
      const again = rounds > 1 ? `, ${count(rounds)} times each` : step.times > 1 && rounds ? ", and again" : "";
      if (step.total && !again) reach.push(el("progress", { max: step.total, value: step.done, "aria-label": `Cells reached: ${step.label}` }));
      const of = step.total ? ` of ${count(step.total)}` : "";
      const left = step.left_s !== null ? `, about ${duration(step.left_s, 2)} for those left` : "";
      reach.push(el("small", {}, `${step.label}: ${count(step.done)}${of} cells reached${again}${left}`));
    }
    return el(
      "li", { className: step.word.replace(" ", "-") },
      el("span", { className: "name" }, `${step.number} ${step.name}${step.protocol && step.protocol !== step.name ? ` (${step.protocol})` : ""}`),
      el("span", { className: "word" }, step.word),
      ...(did || reach.length ? [el("div", { className: "more" }, ...reach, ...(reach.length ? [el("br")] : []), el("small", {}, did))] : []),
    );
  }

  showNotes({ notes, note_count: total }) {
    this.noteSection.hidden = !total;
    const shown = notes.length < total ? `the last ${count(notes.length)} of ${count(total)}` : count(total);
    say(this.notesHead, `Notes and errors: ${shown}`);
    refill(
      this.notes,
      ...[...notes].reverse().map((note) => el("li", { className: note.event }, el("b", {}, note.event), ` ${utc(note.utc)} `, note.text)),
    );
  }

  async showBench() {
    // A run's bench never changes: it is asked for once, when the run has begun and it is looked at.
    if (this.body.hidden || !this.bench.open || this.isTold) return;
    this.isTold = true;
    try {
      const answer = await fetch(`bench/${this.key}`);
      this.isTold = answer.ok;
      if (!answer.ok) return;
      const { facts, limits, text } = await answer.json();
      this.bench.replaceChildren(
        this.bench.firstElementChild,
        el("h3", {}, "Nothing may pass"), pairs(limits),
        el("h3", {}, "Bench"), pairs(facts),
        el("details", {}, el("summary", {}, "The bench file"), el("pre", {}, text)),
      );
    } catch {
      this.isTold = false;
    }
  }
}
