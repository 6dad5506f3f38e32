// The page: which runs are shown, and the events that keep them up to date.

import { Card } from "./card.js";
import { el, refill, say } from "./words.js";

const SHOWN_FIRST = 4;
const MOST = 8;
const cards = new Map();
const link = document.getElementById("link");
const filter = document.getElementById("filter");
let chosen = null;
let listed = [];
let source = null;

function fromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("runs");
  return found === null ? null : found.split(",").filter((key) => /^[0-9a-f]{16}$/.test(key));
}

/** Show these runs, in this order, and follow them. */
function choose(keys) {
  chosen = keys.slice(-MOST);
  history.replaceState(null, "", `${location.pathname}#runs=${chosen.join(",")}`);
  for (const key of [...cards.keys()]) if (!chosen.includes(key)) {
    cards.get(key).element.remove();
    cards.delete(key);
  }
  for (const key of chosen) if (!cards.has(key)) {
    const card = new Card(key, () => choose(chosen.filter((other) => other !== key)));
    cards.set(key, card);
    document.getElementById("cards").append(card.element);
  }
  list();
  connect();
}

function connect() {
  source?.close();
  source = new EventSource(`events?runs=${(chosen ?? []).join(",")}`);
  source.addEventListener("open", () => tellLink("live", false));
  source.addEventListener("error", ({ target }) =>
    tellLink(
      target.readyState === EventSource.CLOSED
        ? "rram-hil watch was started anew: open the address that it printed"
        : "no connection to rram-hil watch; trying again",
      true,
    ),
  );
  source.addEventListener("runs", (event) => take(JSON.parse(event.data)));
  source.addEventListener("run", (event) => {
    const { key, run } = JSON.parse(event.data);
    cards.get(key)?.update(run);
  });
}

function tellLink(text, isLost) {
  say(link, text);
  link.classList.toggle("lost", isLost);
}

function take({ place, runs }) {
  const isFirst = chosen === null;
  const known = new Set(listed.map((run) => run.key));
  const begun = runs.filter((run) => run.status === "under way" && !known.has(run.key)).map((run) => run.key);
  listed = runs;
  say(document.getElementById("place"), place);
  document.getElementById("nothing").hidden = runs.length > 0;
  document.getElementById("chooser").hidden = runs.length < 2;
  if (isFirst) {
    const alive = runs.filter((run) => run.status === "under way").slice(0, SHOWN_FIRST);
    const first = (alive.length ? alive : runs.slice(0, 1)).map((run) => run.key);
    if (first.length) choose(first);
  } else if (begun.some((key) => !chosen.includes(key)) && known.size) {
    choose([...new Set([...chosen, ...begun])]);
  } else list();
}

function list() {
  const wanted = filter.value.trim().toLowerCase();
  const fits = ({ title = "", chip = "", status = "", name, tags = [] }) =>
    [title, chip, status, name, ...tags].some((text) => text.toLowerCase().includes(wanted));
  say(document.getElementById("listing-summary"), `Choose runs: ${chosen?.length ?? 0} of ${listed.length} shown`);
  const focused = document.activeElement?.dataset?.key;
  refill(
    document.getElementById("runs"),
    ...listed.filter(fits).map((run) => {
      const attributes = { type: "checkbox", "data-key": run.key };
      if (chosen?.includes(run.key)) attributes.checked = "";
      return el(
        "li", {},
        el(
          "label", {}, el("input", attributes), el("span", { className: "title" }, run.title || run.name),
          el("small", {}, [run.chip, (run.began ?? "").slice(0, 16).replace("T", " "), run.status, run.name, ...(run.tags ?? [])].filter(Boolean).join(" \u00b7 ")),
        ),
      );
    }),
  );
  if (focused) document.querySelector(`input[data-key="${focused}"]`)?.focus();
}

document.getElementById("runs").addEventListener("change", (event) => {
  const { key } = event.target.dataset;
  const others = (chosen ?? []).filter((other) => other !== key);
  choose(event.target.checked ? [...others, key] : others);
});
filter.addEventListener("input", list);
// The token has done its work; it need not stay in the address, nor in what the browser remembers.
const asked = fromAddress();
history.replaceState(null, "", location.pathname + location.hash);
if (asked?.length) choose(asked);
else connect();
