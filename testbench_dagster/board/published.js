"use strict";
(() => {
  const sections = [...document.querySelectorAll("section")].filter((s) => /^t\d+$/.test(s.id));
  const value = (row, column, numeric) => {
    const cell = row.cells[column];
    const shown = cell.dataset.v ?? cell.textContent;
    return numeric ? parseFloat(shown) : shown.trim();
  };
  const sort = (table, head, numeric) => {
    const now = head.getAttribute("aria-sort");
    // what is better first: high numbers, but low ranks, and names from A
    const first = numeric && head.cellIndex > 0 ? "descending" : "ascending";
    const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const unknown = (v) => v === "–" || v === "" || Number.isNaN(v);
    // a place moves as a whole, by its first row
    const places = [...table.tBodies].map((place) => [value(place.rows[0], head.cellIndex, numeric), place]);
    places.sort(([a], [b]) => {
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b); // always last
      return sign * (numeric ? a - b : a.localeCompare(b));
    });
    table.append(...places.map(([, place]) => place));
  };
  for (const table of document.querySelectorAll("table.ranking")) {
    for (const head of table.tHead.rows[0].cells) {
      if (!head.dataset.k) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", head.cellIndex === 0 ? "ascending" : "none");
      button.addEventListener("click", () => sort(table, head, head.dataset.k === "n"));
    }
  }

  const tabs = document.getElementById("tabs");
  const show = (chosen) => {
    sections.forEach((section, i) => {
      section.hidden = i !== chosen;
      tabs.children[i].setAttribute("aria-selected", String(i === chosen));
      tabs.children[i].tabIndex = i === chosen ? 0 : -1;
    });
    count();
  };
  const shown = document.getElementById("shown");
  const controls = document.getElementById("controls");
  const { q, model } = controls.elements;
  const count = () => {
    const section = sections.find((s) => !s.hidden);
    if (!section) return;
    const rows = [...section.querySelectorAll("tbody tr")];
    const seen = rows.filter((row) => !row.hidden).length;
    shown.textContent = seen === rows.length ? "" : `${seen} of ${rows.length}`;
  };
  if (sections.length > 1) {
    sections.forEach((section, i) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", section.id);
      tab.id = `tab${i}`;
      tab.textContent = section.querySelector("h2").textContent;
      section.setAttribute("role", "tabpanel");
      section.setAttribute("aria-labelledby", tab.id);
      tab.addEventListener("click", () => show(i));
      tabs.append(tab);
    });
    tabs.addEventListener("keydown", (event) => {
      const last = sections.length - 1;
      const now = sections.findIndex((s) => !s.hidden);
      const to = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now ? now - 1 : last, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
      tabs.children[to].focus();
    });
    tabs.hidden = false;
    show(0);
  }

  const text = (cell) => cell.textContent.trim();
  const choose = () => {
    const words = q.value.trim().toLowerCase();
    const chosen = model.value && text(model.selectedOptions[0]);
    const kept = new Set();
    for (const place of document.querySelectorAll("table.ranking tbody")) {
      for (const row of place.rows) {
        const [key, ofModel] = [row.querySelector("th bdi"), row.cells[2]].map(text);
        row.hidden = !`${key} ${ofModel}`.toLowerCase().includes(words) || (chosen && ofModel !== chosen);
        if (!row.hidden) kept.add(key);
      }
    }
    for (const one of document.querySelectorAll("#suppliers>details")) {
      one.hidden = !kept.has(text(one.querySelector("summary bdi")));
    }
    count();
  };
  for (const event of ["input", "change"]) controls.addEventListener(event, choose);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;

  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  // a click on the link of what is already named in the address changes nothing, but closed details open again
  addEventListener("click", (event) => {
    if (event.target.closest?.("a[href^='#']")) setTimeout(reveal);
  });
  reveal();
})();
