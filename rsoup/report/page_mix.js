// Preference sliders, which find the best measured point, and λ, which finds the nearest one.

// Sliders over weights that sum to 1; `moved` hears of every change by hand.
function linked(inputs, moved) {
  const group = {
    weights: inputs.map(() => 1 / inputs.length),
    show() {
      inputs.forEach((input, k) => {
        input.value = group.weights[k];
        input.nextElementSibling.textContent = percent(group.weights[k]);
      });
    },
    set(weights) {
      group.weights = weights;
      group.show();
    },
  };
  inputs.forEach((input, k) => input.addEventListener('input', () => {
    group.set(rebalanced(group.weights, k, Number(input.value)));
    moved();
  }));
  group.show();
  return group;
}

const sliders = (kind) => [...document.querySelectorAll(`input.${kind}`)];

const preference = {
  sliders: byId('preference') ? linked(sliders('wish'), () => preference.follow()) : null,
  normalised: byId('normalised'),

  weights() {
    return this.sliders?.weights ?? Array.from({ length: data.rewards }, () => 1);
  },

  best() {
    const normalised = this.normalised?.checked ?? true;
    return largest(shown(), (point) => utility(point, this.weights(), normalised));
  },

  follow() {
    choose(this.best() ?? shown()[0] ?? null);
    this.say();
    triangle?.shade();
  },

  say() {
    if (!this.sliders) return;
    const best = this.best();
    const asked = this.weights().map((weight, k) => `${data.metrics[k].name} ${percent(weight)}`).join(', ');
    byId('wanted').textContent = best === null ? 'No point shown has every reward.'
      : `Best measured point for μ̂ = (${asked}), ${this.normalised.checked ? 'normalised' : 'raw'}: ${points[best].name}`;
  },

  redraw() {
    this.say();
  },

  wire() {
    this.normalised?.addEventListener('change', () => {
      byId('normalised-note').hidden = !this.normalised.checked;
      byId('raw-note').hidden = this.normalised.checked;
      this.follow();
    });
  },
};

const mix = {
  asked: null, // λ and η as they stand on the controls
  scale: 1,
  step: byId('mix-step'),
  eta: byId('scale-0'),
  share: data.ingredients.length === 2 ? byId('share-0') : null,
  sliders: data.ingredients.length > 3 ? linked(sliders('share'), () => mix.turned(mix.sliders.weights)) : null,

  // By hand: the nearest measured point is chosen, and what was asked for stays.
  turned(asked) {
    this.asked = asked;
    this.byHand = true;
    const found = this.nearest();
    if (found === state.chosen) this.say();
    choose(found);
    this.byHand = false;
    this.show();
  },

  nearest() {
    const all = shown();
    const same = this.step ? all.filter((i) => stepOf(points[i]) === this.step.value) : all;
    return largest(same.length ? same : all, (point) => -apart(point, this.asked, this.scale));
  },

  // A point chosen elsewhere moves the controls to its λ.
  mark() {
    const point = points[state.chosen];
    if (point && !this.byHand) {
      this.asked = point.lambda;
      this.scale = fraction(point.scale);
      if (this.step) this.step.value = stepOf(point);
      if (this.eta) this.eta.value = this.scale;
      if (this.share) this.share.value = point.lambda[1];
      this.sliders?.set(point.lambda);
      this.show();
    }
    this.say();
  },

  show() {
    if (!this.asked) return;
    if (this.share) this.share.nextElementSibling.textContent = percent(this.asked[1]);
    if (this.eta) this.eta.nextElementSibling.textContent = percent(this.scale);
    triangle?.move();
  },

  say() {
    if (!byId('nearest') || !this.asked) return;
    const point = points[state.chosen];
    const asked = data.ingredients.map((name, i) => `${name} ${percent(this.asked[i])}`).join(', ');
    byId('nearest').textContent = point ? `λ = (${asked})${this.eta ? `, η ${percent(this.scale)}` : ''}: nearest measured point ${point.name}` : '';
  },

  wire() {
    this.share?.addEventListener('input', () => this.turned([1 - Number(this.share.value), Number(this.share.value)]));
    this.eta?.addEventListener('input', () => {
      this.scale = Number(this.eta.value);
      this.turned(this.asked);
    });
    this.step?.addEventListener('change', () => this.turned(this.asked));
  },
};

// Three ingredients: a handle in the triangle of all λ, moved by pointer or arrow keys.
const triangle = byId('triangle') && {
  svg: byId('triangle'),
  dots: new Map(),

  redraw() {
    const width = Math.min(360, widthOf(this.svg));
    const side = width - 60;
    const height = side * Math.sqrt(3) / 2;
    sized(this.svg, width, height + 56);
    this.corners = [[30, height + 28], [30 + side, height + 28], [30 + side / 2, 28]];
    const focused = document.activeElement === this.handle;
    const outline = shape('polygon', { class: 'frame', points: this.corners.map((c) => c.join(',')).join(' ') });
    const names = data.ingredients.map((name, i) => shape('text', {
      x: this.corners[i][0], y: this.corners[i][1] + (i < 2 ? 20 : -12), 'text-anchor': ['start', 'end', 'middle'][i], dx: [-24, 24, 0][i],
    }, cut(name, 16)));
    this.dots.clear();
    const all = shown();
    const radius = Math.min(8, Math.max(2, side * 0.42 / Math.sqrt(all.length || 1)));
    for (const i of all) {
      const [x, y] = this.at(points[i].lambda);
      this.dots.set(i, shape('circle', { class: `dot c${points[i].colour}`, cx: x, cy: y, r: radius }));
    }
    this.ring = shape('circle', { class: 'chosen', r: radius + 4 });
    this.handle = shape('circle', {
      class: 'handle', r: 9, tabindex: 0, role: 'slider', 'aria-label': `λ of ${data.ingredients.join(', ')}`,
      'aria-valuemin': 0, 'aria-valuemax': 1, 'aria-roledescription': 'handle in a triangle',
    });
    this.svg.replaceChildren(outline, ...names, ...this.dots.values(), this.ring, this.handle);
    this.svg.setAttribute('role', 'group');
    this.svg.setAttribute('aria-label', 'Triangle of λ. Up and down change the share of the top corner, left and right the other two.');
    this.shade();
    this.mark();
    this.move();
    if (focused) this.handle.focus();
  },

  at(shares) {
    const sum = shares.reduce((a, b) => a + b, 0) || 1;
    return [0, 1].map((k) => shares.reduce((total, share, i) => total + (share / sum) * this.corners[i][k], 0));
  },

  // λ of a place, the nearest there is where it lies outside.
  inverse([x, y]) {
    const [[x0, y0], [x1], [, y2]] = this.corners;
    const top = (y0 - y) / (y0 - y2);
    const right = (x - x0) / (x1 - x0) - top / 2;
    const shares = [1 - top - right, right, top].map((share) => Math.max(0, share));
    const sum = shares.reduce((a, b) => a + b, 0);
    return shares.map((share) => Math.round((share / sum) * 1000) / 1000);
  },

  shade() {
    if (!this.corners) return;
    const worth = (i) => utility(points[i], preference.weights(), preference.normalised?.checked ?? true);
    const values = [...this.dots.keys()].map(worth).filter(Number.isFinite);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    for (const [i, dot] of this.dots) {
      const good = high > low ? (worth(i) - low) / (high - low) : 0.5;
      dot.setAttribute('fill-opacity', Number.isFinite(good) ? 0.08 + 0.92 * good : 0);
    }
  },

  mark() {
    if (!this.corners) return;
    const point = points[state.chosen];
    this.ring.setAttribute('visibility', point ? 'visible' : 'hidden');
    if (!point) return;
    const [x, y] = this.at(point.lambda);
    fill(this.ring, { cx: x, cy: y }, []);
  },

  move() {
    if (!this.corners || !mix.asked) return;
    const [x, y] = this.at(mix.asked);
    const shares = data.ingredients.map((name, i) => `${name} ${percent(mix.asked[i])}`).join(', ');
    const point = points[state.chosen];
    fill(this.handle, {
      cx: x, cy: y, 'aria-valuenow': percent(mix.asked[2]),
      'aria-valuetext': `${shares}${point ? `; nearest measured point ${point.name}` : ''}`,
    }, []);
  },

  key(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const [left, right, top] = mix.asked;
    const moves = {
      ArrowUp: () => rebalanced(mix.asked, 2, Math.min(1, top + step)),
      ArrowDown: () => rebalanced(mix.asked, 2, Math.max(0, top - step)),
      ArrowRight: () => [Math.max(0, left - step), right + Math.min(left, step), top],
      ArrowLeft: () => [left + Math.min(right, step), Math.max(0, right - step), top],
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    mix.turned(moves[event.key]());
  },

  wire() {
    let dragging = false;
    const pull = (event) => mix.turned(this.inverse(pointerIn(this.svg, event)));
    this.svg.addEventListener('pointerdown', (event) => {
      dragging = event.pointerType === 'mouse' || event.target === this.handle;
      if (!dragging) return;
      this.svg.setPointerCapture(event.pointerId);
      this.handle.focus();
      event.preventDefault();
      pull(event);
    });
    this.svg.addEventListener('pointermove', (event) => dragging && pull(event));
    this.svg.addEventListener('pointerup', () => { dragging = false; });
    this.svg.addEventListener('pointercancel', () => { dragging = false; });
    this.svg.addEventListener('click', pull);
    this.svg.addEventListener('keydown', (event) => this.key(event));
    whenResized(byId('mix'), () => this.redraw());
  },
};

views.push(preference, mix);
if (triangle) views.push(triangle);
