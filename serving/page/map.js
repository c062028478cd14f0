"use strict";

// The map of interests as SVG. Everything that it shows is also in the slate and the history as text.
const InterestMap = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const svg = document.getElementById("map");
  const point = document.getElementById("point");
  let interests = [];
  const circles = new Map();

  const EDGE = 1.06;
  const meet = (a, b) =>
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + 0.8 * b.height && b.y < a.y + 0.8 * a.height;

  const size = (interest) => 0.014 + 0.12 * Math.sqrt(Math.min(interest.traffic, 0.12));

  function make(name, attributes, parent) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  }

  function draw(found) {
    interests = found;
    svg.replaceChildren();
    circles.clear();
    const lines = make("g", { id: "lines" }, svg);
    lines.setAttribute("aria-hidden", "true");
    for (const interest of found) {
      const radius = size(interest);
      const circle = make("circle", { cx: interest.x, cy: interest.y, r: radius.toFixed(4) }, svg);
      make("title", {}, circle).textContent = interest.description;
      circle.addEventListener("pointerenter", () => {
        point.textContent = `${interest.description} (${interest.items} items)`;
      });
      circles.set(interest.id, circle);
    }
    make("g", { id: "labels" }, svg);
  }

  // had: cluster -> number of liked events; slate: the answer's items.
  function show(had, slate) {
    const named = new Map(interests.map((interest) => [interest.description, interest]));
    const byId = new Map(interests.map((interest) => [interest.id, interest]));
    const lines = document.getElementById("lines");
    const labels = document.getElementById("labels");
    lines.replaceChildren();
    labels.replaceChildren();
    for (const [id, circle] of circles) {
      circle.setAttribute("class", had.has(id) ? "had" : "");
      circle.style.opacity = had.has(id) ? Math.min(0.45 + had.get(id) / 12, 1) : 1;
    }
    const labelled = new Set();
    const taken = [];
    const label = (interest) => {
      if (labelled.has(interest.id)) return;
      labelled.add(interest.id);
      const text = make("text", { y: interest.y + 0.018 }, labels);
      text.textContent = interest.description.split(",").slice(0, 2).join(",");
      const gap = size(interest) + 0.025;
      const room = interest.x + gap + text.getBBox().width <= EDGE;
      text.setAttribute("x", interest.x + (room ? gap : -gap));
      text.setAttribute("text-anchor", room ? "start" : "end");
      let box = text.getBBox();
      for (let step = 1; step <= 8 && taken.some((other) => meet(box, other)); step += 1) {
        // Down, up, further down, further up, until nothing is in the way.
        const shift = (step % 2 ? 1 : -1) * Math.ceil(step / 2) * 0.8 * box.height;
        text.setAttribute("y", interest.y + 0.018 + shift);
        box = text.getBBox();
      }
      taken.push(box);
    };
    for (const entry of slate.filter((one) => one.slot === "novel")) {
      const target = byId.get(entry.cluster);
      if (!target) continue; // taken down, or back, since the map was drawn
      for (const description of entry.because) {
        const source = named.get(description);
        if (!source) continue;
        circles.get(source.id).setAttribute("class", "source");
        circles.get(source.id).style.opacity = 1;
        const bend = 0.15 * (target.x - source.x);
        const path = `M ${source.x} ${source.y} Q ${(source.x + target.x) / 2} ${(source.y + target.y) / 2 - bend} ${target.x} ${target.y}`;
        make("path", { d: path }, lines);
        label(source);
      }
      circles.get(target.id).setAttribute("class", "fresh");
      label(target);
    }
  }

  return { draw, show };
})();
