"use strict";

const $ = (id) => document.getElementById(id);
const REASONS = {
  table: (entry) => `because you like ${both(entry.because)}`,
  planner: (entry) => `asked the planner just now, because you like ${both(entry.because)}`,
  ranker: () => "suits what you have liked so far",
  frequency: (entry) => `others who like ${both(entry.because)} went on to it`,
  popular: () => "popular, and new to you",
  exploration: () => "a try: drawn at random so that we learn",
  familiar: () => "one of your interests",
};
const both = (names) => (names.length ? names.map((name) => `“${name}”`).join(" and ") : "something near");

const state = { k: 10, events: [], liked: [], release: "", interests: new Map(), waiting: null, asked: 0 };

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function events() {
  return [...state.events, ...state.liked];
}

function request() {
  const instance = { k: state.k, seed: Number($("seed").value) || 0 };
  if (!$("appetite").checked) instance.novel = Number($("quota").value);
  if (state.liked.length) {
    // Likes live in this page alone, so the whole history goes along with the request.
    instance.history = events().map(({ item, engagement, positive }) => ({ item, engagement, positive }));
  } else {
    instance.user_id = $("user").value.trim() || "nobody";
  }
  return { instances: [instance] };
}

async function refresh() {
  const asked = ++state.asked;
  const began = performance.now();
  const response = await fetch("/v1/models/newfound:predict", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request()),
  });
  const answer = await response.json();
  if (asked !== state.asked) return; // a later request overtook this one
  if (!response.ok) {
    say(answer.error, true);
    return;
  }
  const slate = answer.predictions[0];
  if (slate.release !== state.release) await drawMap(); // a new release was taken up
  const milliseconds = Math.round(performance.now() - began);
  const novel = slate.items.filter((entry) => entry.slot === "novel").length;
  if ($("appetite").checked) {
    $("quota").value = novel;
    $("quota-text").textContent = novel;
  }
  const down = slate.degraded.length ? ` Stepped around: ${slate.degraded.join(", ")}.` : "";
  say(`${slate.items.length} items, ${novel} of them from new interests, in ${milliseconds} ms.${down}`, Boolean(down));
  showSlate(slate);
  showHistory();
  const had = new Map();
  for (const event of events()) if (event.cluster) had.set(event.cluster, (had.get(event.cluster) || 0) + 1);
  InterestMap.show(had, slate.items);
  const fresh = slate.items.filter((entry) => entry.slot === "novel").map((entry) => entry.interest);
  $("map-text").textContent = fresh.length
    ? `Each point is an interest; close ones are alike. Newly shown: ${[...new Set(fresh)].join("; ")}.`
    : "Each point is an interest; close ones are alike.";
}

function showSlate(slate) {
  $("slate-text").textContent = `Release ${slate.release}, seed ${slate.seed}.`;
  $("slate").replaceChildren(
    ...slate.items.map((entry, place) => {
      const novel = entry.slot === "novel";
      const body = element("div");
      if (novel) body.append(element("span", { class: "badge" }, "new interest"), " ");
      body.append(element("span", { class: "title" }, entry.title));
      const chance = novel ? `; this interest had a ${(entry.propensity * 100).toFixed(entry.propensity < 0.1 ? 1 : 0)} % chance here` : "";
      body.append(element("span", { class: "why" }, `${entry.interest}: ${REASONS[entry.reason](entry)}${chance}`));
      const like = element("button", { type: "button", class: "like", "aria-pressed": "false" }, "Like");
      like.setAttribute("aria-label", `Like ${entry.title}`);
      like.addEventListener("click", () => {
        state.liked.push({ item: entry.item, title: entry.title, cluster: entry.cluster, engagement: 1, positive: true });
        $("slate").focus();
        refresh().catch((error) => say(error.message, true));
      });
      return element(
        "li",
        { class: novel ? "novel" : "familiar" },
        element("span", { class: "place" }, `${place + 1}.`),
        body,
        like,
      );
    }),
  );
}

function showHistory() {
  const all = events();
  const interests = new Set(all.filter((event) => event.positive && event.cluster).map((event) => event.cluster));
  $("history-text").textContent = all.length
    ? `${all.length} events in ${interests.size} liked interests, newest first.`
    : "Nothing is known of this user: the slate shows what is popular.";
  $("history").replaceChildren(
    ...[...all].reverse().map((event) => {
      const interest = state.interests.get(event.cluster);
      const row = element("li", {}, event.title, event.positive ? "" : " (disliked)");
      row.append(element("span", { class: "cluster" }, interest ? interest.description : "in no interest of this release"));
      if (!event.positive) row.className = "disliked";
      if (state.liked.includes(event)) row.className = "liked-now";
      return row;
    }),
  );
}

async function pick() {
  const user = $("user").value.trim();
  if (!user) return;
  state.liked = [];
  state.events = (await get(`/page/history/${encodeURIComponent(user)}`)).events;
  await refresh();
}

function later(work, milliseconds = 120) {
  clearTimeout(state.waiting);
  state.waiting = setTimeout(() => work().catch((error) => say(error.message, true)), milliseconds);
}

async function drawMap() {
  const map = await get("/page/interests.json");
  state.release = map.release;
  state.k = map.policy.k;
  $("k-text").textContent = state.k;
  $("quota").max = state.k;
  $("release").textContent = `${map.interests.length} interests, release ${map.release}`;
  state.interests = new Map(map.interests.map((interest) => [interest.id, interest]));
  InterestMap.draw(map.interests);
}

async function start() {
  await drawMap();
  const { users } = await get("/page/users.json");
  $("users").replaceChildren(...users.map((user) => element("option", { value: user })));
  if (users.length) $("user").value = users[0];
  $("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    later(pick, 0);
  });
  $("user").addEventListener("change", () => later(pick, 0));
  $("quota").addEventListener("input", () => {
    $("appetite").checked = false;
    $("quota-text").textContent = $("quota").value;
    later(refresh);
  });
  $("appetite").addEventListener("change", () => later(refresh, 0));
  $("seed").addEventListener("input", () => later(refresh));
  $("shuffle").addEventListener("click", () => {
    $("seed").value = Math.floor(Math.random() * 1e6);
    later(refresh, 0);
  });
  await (users.length ? pick() : refresh());
}

start().catch((error) => say(error.message, true));
