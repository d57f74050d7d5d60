"use strict";
(() => {
  const data = JSON.parse(document.getElementById("study").textContent);
  const KEY = `xfavot-cpr:${data.study}:${data.sheet}`;
  const icon = (name, path) =>
    `<svg class="${name}" viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
  const ICONS = icon("go", "M7 4.5v15l13-7.5z") + icon("pause", "M6 5h4v14H6zM14 5h4v14h-4z");
  const $ = (id) => document.getElementById(id);
  const total = data.items.length;
  let state = { started: "", practised: false, answers: [] };
  let shown = null; // the question on the screen

  // ---- what is kept on the device --------------------------------------------------------------

  function fits(kept) {
    const answers = kept && kept.answers;
    return Array.isArray(answers) && answers.length <= total &&
      answers.every((answer, i) => {
        const item = data.items[i];
        return answer.item === item.id && [item.a.t, item.b.t].includes(answer.choice);
      });
  }

  function restore() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      if (fits(kept)) state = kept;
    } catch { /* told by keep() */ }
  }

  function keep() {
    let kept = true;
    try { localStorage.setItem(KEY, JSON.stringify(state)); } catch { kept = false; }
    $("storage").hidden = kept;
  }

  // ---- the file with the answers ---------------------------------------------------------------

  function crc32(text) {
    let crc = -1;
    for (const byte of new TextEncoder().encode(text)) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ((crc ^ -1) >>> 0).toString(16).padStart(8, "0");
  }

  function check(answers) {
    const lines = answers.map((a) =>
      [a.item, a.choice, a.side, a.ms, a.plays, a.heard_ms, a.at].join("|"));
    return crc32([data.study, data.sheet, ...lines].join("\n"));
  }

  function answersFile() {
    const content = {
      format: "xfavot-cpr-answers", version: 1, study: data.study, sheet: data.sheet,
      started: state.started, saved: new Date().toISOString(),
      answered: state.answers.length, of: total,
      answers: state.answers, check: check(state.answers),
    };
    return JSON.stringify(content, null, 1) + "\n";
  }

  const fileName = () => `answers_${data.study}_sheet_${data.sheet}.json`;

  function download() {
    const url = URL.createObjectURL(new Blob([answersFile()], { type: "application/json" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  async function readFile(file) {
    let given;
    try { given = JSON.parse(await file.text()); } catch { return "This is no file with answers."; }
    if (given.format !== "xfavot-cpr-answers") return "This is no file with answers.";
    if (given.study !== data.study) return "This file belongs to another study.";
    if (given.sheet !== data.sheet) {
      return `This file belongs to sheet ${given.sheet}; this is sheet ${data.sheet}.`;
    }
    if (!fits(given) || given.check !== check(given.answers)) {
      return "This file is damaged or was changed.";
    }
    if (given.answers.length < state.answers.length) {
      return "This device already holds more answers than the file.";
    }
    state = { started: given.started, practised: true, answers: given.answers };
    keep();
    open();
    return "";
  }

  // ---- voices ----------------------------------------------------------------------------------

  class Player {
    constructor(voice, words) {
      const bytes = Uint8Array.from(atob(voice), (c) => c.charCodeAt(0));
      this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
      this.audio = new Audio(this.url);
      this.audio.preload = "auto";
      this.words = words;
      this.plays = 0;
      this.heard = 0; // ms of earlier plays
      this.from = 0; // when this play began, 0 while it is quiet
      this.whole = false; // it was heard to its end
      this.broken = false;
      this.button = document.createElement("button");
      this.button.type = "button";
      this.button.className = "player";
      this.button.innerHTML = `<span class="fill"></span><span class="disc">${ICONS}</span>` +
        '<span class="words"></span><span class="time" aria-hidden="true"></span>';
      this.say(`Play ${words}`);
      this.button.addEventListener("click", () => this.toggle());
      this.audio.addEventListener("playing", () => {
        if (!this.from) this.from = performance.now();
        this.button.classList.add("playing");
        this.say(`Playing ${words}`);
        this.tick();
      });
      this.audio.addEventListener("pause", () => this.quiet());
      this.audio.addEventListener("ended", () => { this.whole = true; this.quiet(); });
      this.audio.addEventListener("durationchange", () => this.clock());
      this.audio.addEventListener("error", () => {
        this.broken = true;
        this.say("This clip does not play here; please use another browser");
        update();
      });
    }

    say(text) { this.button.querySelector(".words").textContent = text; }

    clock() {
      const length = this.audio.duration;
      if (!Number.isFinite(length)) return;
      this.button.querySelector(".time").textContent = `${length.toFixed(1)} s`;
      const part = this.audio.paused ? 0 : Math.min(1, this.audio.currentTime / length);
      this.button.querySelector(".fill").style.transform = `scaleX(${part})`;
    }

    tick() {
      this.clock();
      update();
      if (this.from) requestAnimationFrame(() => this.tick());
    }

    quiet() {
      if (this.from) this.heard += performance.now() - this.from;
      this.from = 0;
      this.button.classList.remove("playing");
      if (!this.broken) this.say(this.words === "the voice" ? "Play again" : `Play ${this.words}`);
      this.clock();
      update();
    }

    listened() { return this.heard + (this.from ? performance.now() - this.from : 0); }

    enough() { return this.broken || this.whole || this.listened() >= data.listen_ms; }

    toggle() { if (this.audio.paused) this.play(); else this.audio.pause(); }

    play() {
      for (const other of shown.players) if (other !== this) other.audio.pause();
      shown.last = this;
      this.audio.currentTime = 0;
      this.audio.play().then(() => { this.plays += 1; }, () => {});
    }

    drop() {
      this.audio.pause();
      this.audio.removeAttribute("src");
      this.audio.load(); // lets go of the clip before its address goes
      URL.revokeObjectURL(this.url);
    }
  }

  // ---- a question ------------------------------------------------------------------------------

  function picture(face, name) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${face}`;
    image.alt = name;
    image.draggable = false;
    return image;
  }

  function ask(item) {
    if (shown) for (const player of shown.players) player.drop();
    shown = { item, players: [], choice: "", side: "", last: null, since: performance.now() };
    const voices = item.a.k === "voice";
    $("ask").textContent = voices ? "Which voice fits this face?" : "Which face fits this voice?";
    $("example").hidden = item !== data.practice;
    const add = (voice, words) => {
      const player = new Player(voice, words);
      shown.players.push(player);
      return player.button;
    };
    $("prompt").replaceChildren(
      item.p.k === "voice" ? add(item.p.d, "the voice") : picture(item.p.d, "The face"));
    $("choices").className = voices ? "voices" : "faces";
    $("choices").replaceChildren(...["A", "B"].map((side) => {
      const candidate = item[side.toLowerCase()];
      const label = document.createElement("label");
      label.className = "choice";
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "choice", value: candidate.t });
      input.dataset.side = side;
      input.setAttribute("aria-label", `${voices ? "Voice" : "Face"} ${side}`);
      input.addEventListener("change", () => choose(side));
      const name = document.createElement("span");
      name.className = "name";
      name.innerHTML = `<i></i><span>${voices ? "Voice" : "Face"} ${side}</span>`;
      label.append(input,
        voices ? add(candidate.d, `voice ${side}`) : picture(candidate.d, ""), name);
      return label;
    }));
    show("question");
    update();
    if (item.p.k === "voice") shown.players[0].play();
  }

  function choose(side) {
    for (const input of document.querySelectorAll("#choices input")) {
      input.checked = input.dataset.side === side;
      input.parentElement.classList.toggle("chosen", input.checked);
      if (input.checked) shown.choice = input.value;
    }
    shown.side = side;
    update();
  }

  const heardAll = () => shown.players.every((player) => player.enough());

  function update() {
    if (!shown) return;
    const ready = heardAll();
    $("next").disabled = !(ready && shown.choice);
    const many = shown.players.length > 1 ? "both voices" : "the voice";
    $("hint").textContent = !ready ? `Please listen to ${many}.`
      : shown.choice ? "" : "Choose A or B. If you are unsure, guess.";
  }

  function next() {
    if ($("next").disabled) return;
    const now = performance.now();
    if (shown.item === data.practice) {
      state.practised = true;
    } else {
      const sum = (of) => Math.round(shown.players.reduce((all, one) => all + of(one), 0));
      state.answers.push({
        item: shown.item.id, choice: shown.choice, side: shown.side,
        ms: Math.round(now - shown.since), plays: sum((one) => one.plays),
        heard_ms: sum((one) => one.listened()), at: new Date().toISOString(),
      });
    }
    keep();
    forward();
  }

  function forward() {
    const done = state.answers.length;
    if (done < total) ask(state.practised ? data.items[done] : data.practice);
    else finish();
  }

  function finish() {
    if (shown) for (const player of shown.players) player.drop();
    shown = null;
    $("text").value = answersFile();
    const file = new File([answersFile()], fileName(), { type: "application/json" });
    $("share").hidden = !(navigator.canShare && navigator.canShare({ files: [file] }));
    show("end");
  }

  // ---- the page --------------------------------------------------------------------------------

  function show(id) {
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = section.id !== id;
    }
    const done = state.answers.length;
    $("progress").value = total ? done / total : 0;
    const practice = shown && shown.item === data.practice;
    $("count").textContent = id === "question"
      ? (practice ? "Example" : `${done + 1} of ${total}`)
      : (done ? `${done} of ${total}` : `Sheet ${data.sheet}`);
    window.scrollTo(0, 0);
    $(id).querySelector("h1").focus({ preventScroll: true });
  }

  function open() {
    const done = state.answers.length;
    $("done-so-far").textContent = `${done} of ${total} answered`;
    if (done === total) finish();
    else show(done || state.practised ? "again" : "welcome");
  }

  const KEYS = { a: "A", ArrowLeft: "A", 1: "A", b: "B", ArrowRight: "B", 2: "B" };

  document.addEventListener("keydown", (event) => {
    if (!shown || $("question").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.closest("button, summary, textarea");
    const side = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (side) {
      event.preventDefault();
      choose(side);
    } else if (event.key === " " && !onButton) {
      event.preventDefault();
      const playing = shown.players.find((player) => !player.audio.paused);
      const after = (shown.players.indexOf(shown.last) + 1) % shown.players.length;
      if (!event.repeat) (playing || shown.players[after]).toggle();
    } else if (event.key === "Enter" && !onButton && !event.repeat) {
      event.preventDefault();
      next();
    }
  });

  $("agree").addEventListener("change", () => { $("start").disabled = !$("agree").checked; });
  $("start").addEventListener("click", () => {
    state.started = new Date().toISOString();
    keep();
    forward();
  });
  $("resume").addEventListener("click", forward);
  $("next").addEventListener("click", next);
  $("pause").addEventListener("click", download);
  $("save").addEventListener("click", () => {
    download();
    $("saved").textContent = `The file is called ${fileName()}.`;
  });
  $("share").addEventListener("click", () => {
    const file = new File([answersFile()], fileName(), { type: "application/json" });
    navigator.share({ files: [file] }).catch(() => {});
  });
  $("copy").addEventListener("click", () => {
    $("text").select();
    if (navigator.clipboard) navigator.clipboard.writeText($("text").value).catch(() => {});
    else document.execCommand("copy");
  });
  for (const button of document.querySelectorAll(".forget")) {
    button.addEventListener("click", () => {
      if (!window.confirm("Delete all answers to this sheet from this device?")) return;
      try { localStorage.removeItem(KEY); } catch { /* nothing was kept */ }
      location.reload();
    });
  }
  $("file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (file) $("file-error").textContent = await readFile(file);
    event.target.value = ""; // so that the same file can be tried again
  });
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  window.addEventListener("storage", (event) => {
    if (event.key === KEY || event.key === null) location.reload(); // another tab answered
  });

  $("how-many").textContent = String(total);
  $("minutes").textContent = `${data.minutes} minute${data.minutes === 1 ? "" : "s"}`;
  $("size").textContent = `${(document.documentElement.outerHTML.length / 1e6).toFixed(1)} MB`;
  restore();
  keep();
  open();
})();
