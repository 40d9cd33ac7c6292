"use strict";

/* Sorting, filtering, what is shown, and the theme. What the reader chose stands in the address's fragment, so that a
   view can be linked. Nothing is fetched, and no text is ever parsed as HTML. */

(() => {
  const root = document.documentElement;
  const THEME = "hierbench-theme";
  const THEMES = ["auto", "light", "dark"];

  // a page from a file may not be allowed to keep anything
  const kept = () => { try { return localStorage.getItem(THEME); } catch { return null; } };
  const keep = (value) => { try { localStorage.setItem(THEME, value); } catch { /* lasts for this page */ } };

  let theme = THEMES.includes(kept()) ? kept() : "auto";
  const applyTheme = () => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-button]")) button.textContent = `Theme: ${theme}`;
  };
  applyTheme(); // before the first paint
  root.classList.add("js");

  const DEFAULTS = { show: "", scoring: "rollup", sort: "", order: "", filter: "", hide: "", intervals: "" };
  let state = { ...DEFAULTS };

  const readState = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    state = { ...DEFAULTS };
    for (const name of Object.keys(DEFAULTS)) if (said.has(name)) state[name] = said.get(name);
    if (state.scoring !== "direct") state.scoring = "rollup";
    if (state.order !== "ascending") state.order = state.sort ? "descending" : "";
  };

  const writeState = () => {
    const said = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name]) said.set(name, value);
    const text = said.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };

  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  /* ---- tables */

  const heading = (table, key) => all("th[data-key]", table).find((th) => th.dataset.key === key && shown(th));
  const shown = (th) => !th.matches(root.dataset.scoring === "direct" ? ".s-rollup" : ".s-direct");

  const compare = (kind) => (a, b) =>
    kind === "text" ? a.localeCompare(b, "en", { numeric: true, sensitivity: "base" }) : Number(a) - Number(b);

  const sortTable = (table) => {
    for (const th of all("th[aria-sort]", table)) th.setAttribute("aria-sort", "none");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.forEach((row, place) => { row.dataset.place ??= String(place); });
    const byPlace = (a, b) => Number(a.dataset.place) - Number(b.dataset.place);
    const isBoard = table.querySelector('[data-key="robust-leaf"]') !== null;
    const key = state.sort || (isBoard ? "robust-leaf" : "");
    const th = key && heading(table, key);
    if (!th) { rows.sort(byPlace); body.append(...rows); return; }
    const column = Number(th.dataset.col);
    const ascending = state.sort ? state.order === "ascending" : false;
    const order = compare(th.dataset.kind);
    const value = (row) => row.cells[column]?.dataset.v;
    rows.sort((a, b) => {
      const [first, second] = [value(a), value(b)];
      const custom = a.classList.contains("is-custom") - b.classList.contains("is-custom"); // always after the others
      if (custom) return custom;
      const missing = (first === undefined || first === "") - (second === undefined || second === "");
      if (missing) return missing; // what was not measured stands last either way
      if (first === undefined || first === "") return byPlace(a, b);
      return (ascending ? order(first, second) : order(second, first)) || byPlace(a, b);
    });
    body.append(...rows);
    th.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };

  const spanGroups = (table) => {
    // a group of columns is as wide as those of its columns that are shown
    const groups = all(".groups .group", table);
    const heads = all(".heads th", table);
    let at = 0;
    for (const group of groups) {
      const width = Number(group.dataset.width ??= String(group.colSpan));
      const own = heads.slice(at, at + width);
      at += width;
      const wide = own.filter((th) => getComputedStyle(th).display !== "none").length;
      group.hidden = wide === 0;
      if (wide) group.colSpan = wide;
    }
  };

  const filterTables = () => {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    for (const section of all("[data-section]")) {
      const rows = all("tr[data-search]", section);
      let found = 0;
      for (const row of rows) {
        const text = row.dataset.search.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        if (!row.hidden && getComputedStyle(row).display !== "none") found += 1;
      }
      const note = section.querySelector("[data-empty]");
      if (note) note.hidden = found > 0;
      section.dataset.foundRows = `${found} of ${rows.length}`;
    }
    const current = document.querySelector("[data-section]:not([hidden])");
    for (const place of all("[data-count]")) place.textContent = current ? `${current.dataset.foundRows} ${place.dataset.count}` : "";
  };

  const showSection = () => {
    const sections = all("[data-section]");
    if (!sections.length) return;
    const chosen = sections.find((s) => s.dataset.section === state.show) ?? sections.find((s) => "first" in s.dataset) ?? sections[0];
    for (const section of sections) section.hidden = section !== chosen;
    for (const link of all("[data-show]")) {
      if (link.dataset.show === chosen.dataset.section) {
        link.setAttribute("aria-current", "true");
        link.closest("details")?.setAttribute("open", "");
      } else link.removeAttribute("aria-current");
    }
  };

  const apply = () => {
    root.dataset.scoring = state.scoring;
    root.dataset.hide = state.hide;
    if (state.intervals === "on") root.dataset.intervals = "on"; else delete root.dataset.intervals;
    const hidden = state.hide.split(" ");
    for (const input of all("[data-hide]", document.body)) input.checked = !hidden.includes(input.dataset.hide);
    for (const input of all("[data-state]")) {
      if (input.type === "radio") input.checked = input.value === state[input.dataset.state];
      else if (input.type === "checkbox") input.checked = state[input.dataset.state] === "on";
      else if (input.value !== state[input.dataset.state]) input.value = state[input.dataset.state];
    }
    showSection();
    all("table[data-sortable]").forEach(sortTable);
    all("table.board").forEach(spanGroups);
    filterTables();
  };

  const change = (part) => { state = { ...state, ...part }; writeState(); apply(); };

  const onSort = (th) => {
    const current = th.getAttribute("aria-sort");
    const first = th.dataset.kind === "text" ? "ascending" : "descending";
    const other = { ascending: "descending", descending: "ascending" };
    change({ sort: th.dataset.key, order: other[current] ?? first });
  };

  /* ---- trees */

  const startOutline = (outline) => {
    const branches = all("details.branch", outline);
    const leaves = all(".leaves li", outline);
    const said = outline.querySelector("[data-found]");
    outline.querySelector("[data-open]").addEventListener("click", () => branches.forEach((b) => { b.open = true; }));
    outline.querySelector("[data-close]").addEventListener("click", () => branches.forEach((b, i) => { b.open = i === 0; }));
    outline.querySelector("[data-find]").addEventListener("input", (event) => {
      const word = event.target.value.trim().toLowerCase();
      let hits = 0;
      branches.forEach((branch, i) => { branch.open = i === 0; });
      for (const leaf of leaves) {
        const hit = word !== "" && leaf.textContent.toLowerCase().includes(word);
        leaf.classList.toggle("hit", hit);
        if (!hit) continue;
        hits += 1;
        for (let up = leaf.closest("details"); up; up = up.parentElement.closest("details")) up.open = true;
      }
      said.textContent = word ? `${hits} of ${leaves.length} classes` : "";
      outline.querySelector(".hit")?.scrollIntoView({ block: "nearest" });
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    applyTheme();
    for (const button of all("[data-theme-button]")) {
      button.addEventListener("click", () => {
        theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
        keep(theme);
        applyTheme();
      });
    }
    for (const th of all("table[data-sortable] th[data-key]")) {
      th.querySelector("button").addEventListener("click", () => onSort(th));
    }
    for (const link of all("[data-show]")) {
      link.addEventListener("click", (event) => { event.preventDefault(); change({ show: link.dataset.show }); });
    }
    for (const input of all("[data-state]")) {
      input.addEventListener(input.type === "search" ? "input" : "change", () => {
        const value = input.type === "checkbox" ? (input.checked ? "on" : "") : input.value;
        change({ [input.dataset.state]: value });
      });
    }
    for (const input of all("[data-hide]", document.body)) {
      input.addEventListener("change", () => {
        const hidden = all("[data-hide]", document.body).filter((i) => !i.checked).map((i) => i.dataset.hide);
        change({ hide: hidden.join(" ") });
      });
    }
    all("[data-outline]").forEach(startOutline);
    // a plain fragment names a place on the page and says nothing of the state
    window.addEventListener("hashchange", () => { if (location.hash.includes("=")) { readState(); apply(); } });
    readState();
    apply();
  });
})();
