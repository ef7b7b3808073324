// The Hopfield network of chapter 1 in the browser: ebmm.Hopfield(size, rule="pseudo-inverse").
// Patterns and states are arrays of signs, -1 and +1.
"use strict";

class Hopfield {
  constructor(size) {
    this.size = size;
    this.axes = []; // unit vectors r: the projection onto the patterns is P, the sum of all r r^T
    this.diagonal = new Float64Array(size); // of P; the couplings W are P without it
  }

  // r is what a pattern has that those before it have not. Ten such vectors say all that a matrix of 784 x 784 would.
  write(pattern) {
    const rest = Float64Array.from(pattern);
    for (let pass = 0; pass < 2; pass++) // the second removes what rounding left of the first
      for (const axis of this.axes) {
        const share = dot(axis, rest);
        for (let unit = 0; unit < this.size; unit++) rest[unit] -= share * axis[unit];
      }
    const length = Math.sqrt(dot(rest, rest));
    if (length < 1e-9 * this.size) return; // nothing new
    this.axes.push(rest.map((value) => value / length));
    for (let unit = 0; unit < this.size; unit++) this.diagonal[unit] += (rest[unit] / length) ** 2;
  }

  // E(x) = -1/2 x^T W x
  energy(state) {
    return this.energyFrom(this.axes.map((axis) => dot(axis, state)));
  }

  energyFrom(shares) {
    return (sum(this.diagonal) - dot(shares, shares)) / 2;
  }

  // Unit after unit takes the sign of its field until none changes; `order()` gives the units of a sweep.
  // Returns the units that changed, one by one, the energy before and after each change, and the last state.
  fall(query, order) {
    const state = Float64Array.from(query);
    const shares = this.axes.map((axis) => dot(axis, state));
    const changed = [];
    const energies = [this.energyFrom(shares)];
    for (let before = -1; before < changed.length; ) {
      before = changed.length;
      for (const unit of order()) {
        let field = -this.diagonal[unit] * state[unit];
        this.axes.forEach((axis, n) => (field += axis[unit] * shares[n]));
        if (Math.abs(field) < 1e-9 || Math.sign(field) === state[unit]) continue; // a field of zero changes nothing
        state[unit] = -state[unit];
        this.axes.forEach((axis, n) => (shares[n] += 2 * state[unit] * axis[unit]));
        changed.push(unit);
        energies.push(this.energyFrom(shares));
      }
    }
    return { changed, energies, state };
  }
}

function dot(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

// Numbers in [0, 1) that are the same on every visit (the generator mulberry32).
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// The numbers 0 ... size - 1 in random order (Fisher and Yates).
function shuffled(size, random) {
  const order = Array.from({ length: size }, (_, i) => i);
  for (let i = size - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
