// The figure of the landing page that one plays with: damage a digit, let it fall, watch the energy.
"use strict";

{
  const SIDE = 28;
  const UNITS = SIDE * SIDE;
  const CELL = 24; // pixels of the large canvas for a unit
  const FALL = 2400; // milliseconds, however many units change
  const PAUSE = 600; // to look at new damage before it falls
  const FLASH = 450;
  const PLOT = { left: 58, right: 428, top: 34, bottom: 258, highest: 20, lowest: -430 };
  const REMEMBERED = 4; // earlier falls that stay in the figure

  const hero = document.querySelector(".hero");
  const find = (selector) => hero.querySelector(selector);
  const picture = find(".hero-digit");
  const curve = find(".hero-curve");
  const slider = find("input[type=range]");
  const result = find(".hero-result");
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const digits = STORED_DIGITS.map((rows) =>
    rows.split(" ").flatMap((row) => Array.from(parseInt(row, 16).toString(2).padStart(SIDE, "0"), (bit) => 2 * bit - 1))
  );
  const memory = new Hopfield(UNITS);
  digits.forEach((digit) => memory.write(digit));
  const floor = memory.energy(digits[0]); // the same for all of them: no state lies deeper

  const random = seeded(1982);
  let chosen = 3;
  let partner = null; // the other digit of a mixture
  let damage = flip; // how the query was made; null: by hand
  let ranking = shuffled(UNITS, random); // the slider flips the first of it
  let state;
  let fall = null; // once it has begun: what memory.fall returns, the query, how many changes are shown, since when
  let end = ""; // "falling", "right" or "wrong"
  let earlier = [];
  let frame = 0;
  const flashes = new Float64Array(UNITS).fill(-Infinity); // when each unit last changed

  // Damage: each way gives a new query.

  function flip() {
    const flipped = new Set(ranking.slice(0, Math.round((slider.value / 100) * UNITS)));
    return digits[chosen].map((sign, unit) => (flipped.has(unit) ? -sign : sign));
  }

  function eraseLowerHalf() {
    return digits[chosen].map((sign, unit) => (unit < UNITS / 2 ? sign : -1));
  }

  function mix() {
    return digits[chosen].map((sign, unit) => (random() < 0.5 ? sign : digits[partner][unit]));
  }

  function choosePartner() {
    partner = (chosen + 1 + Math.floor(random() * (digits.length - 1))) % digits.length;
  }

  function showDamage(way) {
    damage = way;
    if (fall) ranking = shuffled(UNITS, random);
    show(damage());
  }

  function show(query) {
    if (end === "right" || end === "wrong") earlier = [...earlier, { energies: fall.energies, end }].slice(-REMEMBERED);
    cancelAnimationFrame(frame);
    fall = null;
    end = "";
    state = query;
    if (damage !== mix) partner = null;
    if (damage !== flip) slider.value = 0;
    find(".hero-share").textContent = `${slider.value} %`;
    slider.setAttribute("aria-valuetext", `${slider.value} %`);
    describe();
    redraw();
  }

  // The fall.

  function letFall() {
    if (end === "falling") return finish();
    const again = fall !== null;
    if (again && damage) showDamage(damage);
    else if (again) show(fall.query);
    fall = { ...memory.fall(state, () => shuffled(UNITS, random)), query: state, shown: 0 };
    if (still.matches || fall.changed.length === 0) return finish();
    fall.start = performance.now() + (again ? PAUSE : 0);
    end = "falling";
    state = Array.from(state);
    redraw();
    frame = requestAnimationFrame(step);
  }

  function step(now) {
    const share = Math.min(1, Math.max(0, now - fall.start) / FALL);
    const count = Math.round(share * fall.changed.length);
    for (const unit of fall.changed.slice(fall.shown, count)) {
      state[unit] = -state[unit];
      flashes[unit] = now;
    }
    fall.shown = count;
    if (share === 1) return finish();
    drawDigit(now);
    drawLine();
    frame = requestAnimationFrame(step);
  }

  function finish() {
    cancelAnimationFrame(frame);
    fall.shown = fall.changed.length;
    state = Array.from(fall.state);
    describe();
    redraw();
    frame = requestAnimationFrame(fade);
  }

  function fade(now) {
    drawDigit(now);
    if (flashes.some((then) => now - then < FLASH)) frame = requestAnimationFrame(fade);
  }

  // Words.

  function written(energy) {
    return (Math.round(10 * energy) / 10 || 0).toFixed(1).replace("-", "\u2212"); // never a minus before 0.0
  }

  function different(a, b) {
    return a.reduce((total, sign, unit) => total + (sign !== b[unit]), 0);
  }

  function nameOfQuery() {
    if (damage === mix) return `A mixture of the ${chosen} and the ${partner}`;
    if (damage === eraseLowerHalf) return `The ${chosen} without its lower half`;
    const wrong = different(state, digits[chosen]);
    return wrong ? `The ${chosen} with ${wrong} of its ${UNITS} pixels wrong` : `The ${chosen} as it is stored`;
  }

  function placeOfRest() {
    const made = partner === null ? [chosen] : [chosen, partner];
    const distances = digits.map((digit) => different(state, digit));
    const stored = distances.indexOf(0);
    if (made.includes(stored)) return ["right", `in the stored ${stored}`];
    if (stored >= 0) return ["wrong", `in the stored ${stored}, though it began as the ${made.join(" and the ")}`];
    const inverse = distances.indexOf(UNITS);
    if (inverse >= 0) return ["wrong", `in the inverse of the ${inverse}, which nobody wrote and which lies as deep`];
    const nearest = distances.indexOf(Math.min(...distances));
    return ["wrong", `in a valley that nobody wrote. The nearest digit, the ${nearest}, is ${distances[nearest]} pixels away`];
  }

  function describe() {
    const level = `The ten stored digits lie at ${written(floor)}.`;
    if (fall === null) {
      const energy = written(memory.energy(state));
      tell(nameOfQuery(), `The energy of what is shown is ${energy}. ${level}`);
      result.textContent = `${nameOfQuery()}: its energy is ${energy}.`;
      return;
    }
    const [how, where] = placeOfRest();
    const count = fall.changed.length;
    const [first, last] = [fall.energies[0], fall.energies[count]].map(written);
    end = how;
    if (count === 0) {
      tell(`At rest ${where}`, `The energy stays at ${last}. ${level}`);
      result.textContent = `No unit wants to change: it rests ${where}, at an energy of ${last}.`;
    } else {
      const changes = count === 1 ? "one change" : `${count} changes`;
      tell(`At rest ${where}`, `The energy falls from ${first} to ${last} in ${changes}. ${level}`);
      result.textContent = `It came to rest ${where}. The energy fell from ${first} to ${last} in ${changes} of a unit.`;
    }
  }

  function tell(pictured, plotted) {
    picture.setAttribute("aria-label", `${pictured}.`);
    curve.setAttribute("aria-label", plotted);
  }

  // Pictures.

  function colour(name) {
    return getComputedStyle(hero).getPropertyValue(`--hero-${name}`).trim();
  }

  function redraw() {
    hero.dataset.end = end;
    drawDigit(Infinity);
    drawAxes();
    drawLine();
    hero.querySelectorAll(".hero-digits label").forEach((label, number) => {
      drawCells(label.querySelector("canvas"), digits[number], 4, 0);
      const here = (end === "right" || end === "wrong") && different(state, digits[number]) === 0;
      label.classList.toggle("hero-here", here);
    });
  }

  function drawCells(canvas, pattern, cell, gap) {
    const context = canvas.getContext("2d");
    context.fillStyle = colour("paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = colour("ink");
    pattern.forEach((sign, unit) => {
      if (sign > 0) context.fillRect((unit % SIDE) * cell, Math.floor(unit / SIDE) * cell, cell - gap, cell - gap);
    });
  }

  function drawDigit(now) {
    drawCells(picture, state, CELL, 1);
    const context = picture.getContext("2d");
    context.fillStyle = colour("query");
    flashes.forEach((then, unit) => {
      const left = 1 - (now - then) / FLASH;
      if (left <= 0) return;
      context.globalAlpha = left;
      context.fillRect((unit % SIDE) * CELL, Math.floor(unit / SIDE) * CELL, CELL - 1, CELL - 1);
    });
    context.globalAlpha = 1;
  }

  // The width of the figure, in changes.
  function steps() {
    const shown = fall ? [fall, ...earlier] : earlier;
    return Math.max(100, ...shown.map(({ energies }) => energies.length - 1));
  }

  function place(count, energy) {
    const down = (PLOT.highest - energy) / (PLOT.highest - PLOT.lowest);
    const [x, y] = [
      PLOT.left + ((PLOT.right - PLOT.left) * count) / steps(),
      PLOT.top + (PLOT.bottom - PLOT.top) * down,
    ];
    return [x.toFixed(2), y.toFixed(4)];
  }

  function pointsOf(energies) {
    return energies.map((energy, count) => place(count, energy)).join(" ");
  }

  function drawLine() {
    const energies = fall ? fall.energies.slice(0, fall.shown + 1) : [memory.energy(state)];
    const [x, y] = place(energies.length - 1, energies.at(-1));
    find(".hero-line").setAttribute("points", pointsOf(energies));
    find(".hero-ball").setAttribute("cx", x);
    find(".hero-ball").setAttribute("cy", y);
    find(".hero-now").textContent = written(energies.at(-1));
  }

  function drawAxes() {
    const apart = [20, 50, 100, 200].find((size) => steps() / size <= 5);
    const ticks = [];
    for (let count = 0; count <= steps(); count += apart)
      ticks.push(svg("text", { x: place(count, 0)[0], y: PLOT.bottom + 20, "text-anchor": "middle" }, count));
    for (let energy = 0; energy >= PLOT.lowest; energy -= 100) {
      const y = Number(place(0, energy)[1]) + 5;
      ticks.push(svg("text", { x: PLOT.left - 8, y, "text-anchor": "end" }, `${energy}`.replace("-", "\u2212")));
    }
    find(".hero-ticks").replaceChildren(...ticks);
    find(".hero-earlier").replaceChildren(
      ...earlier.flatMap(({ energies, end }) => {
        const [cx, cy] = place(energies.length - 1, energies.at(-1));
        return [svg("polyline", { points: pointsOf(energies) }), svg("circle", { cx, cy, r: 4, class: end })];
      })
    );
    const y = place(0, floor)[1];
    for (const side of ["y1", "y2"]) find(".hero-floor").setAttribute(side, y);
    find(".hero-floor-name").setAttribute("y", Number(y) + 17);
  }

  function svg(kind, attributes, words = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = words;
    return element;
  }

  // Hands.

  // The brush is three units wide. It puts ink where it first touched paper, and paper where it first touched ink.
  function paint(event) {
    if (event.button) return;
    const touched = ({ clientX, clientY }) => {
      const box = picture.getBoundingClientRect();
      return [((clientX - box.left) / box.width) * SIDE, ((clientY - box.top) / box.height) * SIDE];
    };
    let from = touched(event);
    const sign = -state[Math.floor(from[1]) * SIDE + Math.floor(from[0])] || 1;
    const stroke = (move) => {
      const to = touched(move);
      const painted = Array.from(state);
      const parts = Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
      for (let part = 0; part <= parts; part++) {
        const [column, row] = to.map((value, axis) => from[axis] + ((value - from[axis]) * part) / parts);
        for (let unit = 0; unit < UNITS; unit++)
          if (Math.hypot((unit % SIDE) + 0.5 - column, Math.floor(unit / SIDE) + 0.5 - row) < 1.3) painted[unit] = sign;
      }
      from = to;
      damage = null;
      show(painted);
    };
    picture.setPointerCapture(event.pointerId);
    stroke(event);
    picture.onpointermove = stroke;
    picture.onpointerup = picture.onpointercancel = () => (picture.onpointermove = null);
  }

  for (const number of digits.keys()) {
    const label = document.createElement("label");
    label.innerHTML =
      `<input type="radio" name="hero-stored" value="${number}"><span class="visually-hidden">${number}</span>` +
      `<canvas width="${4 * SIDE}" height="${4 * SIDE}" aria-hidden="true"></canvas>`;
    label.querySelector("input").checked = number === chosen;
    find(".hero-digits").append(label);
  }
  find(".hero-floor-name").textContent = `the ten stored digits: ${written(floor)}`;
  showDamage(flip);

  find(".hero-digits").addEventListener("change", (event) => {
    chosen = Number(event.target.value);
    if (damage === mix) choosePartner();
    showDamage(damage ?? flip);
  });
  slider.addEventListener("input", () => showDamage(flip));
  find(".hero-erase").addEventListener("click", () => showDamage(eraseLowerHalf));
  find(".hero-mix").addEventListener("click", () => {
    choosePartner();
    showDamage(mix);
  });
  find(".hero-fall").addEventListener("click", letFall);
  picture.addEventListener("pointerdown", paint);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  // It falls once by itself when it comes into view, unless a reader was quicker.
  let touched = false;
  for (const kind of ["pointerdown", "keydown", "input"]) hero.addEventListener(kind, () => (touched = true));
  const watch = new IntersectionObserver(
    ([seen]) => {
      if (!seen.isIntersecting) return;
      watch.disconnect();
      setTimeout(() => touched || still.matches || letFall(), PAUSE);
    },
    { threshold: 0.6 }
  );
  watch.observe(picture);
}
