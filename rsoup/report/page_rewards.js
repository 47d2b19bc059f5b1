// Many rewards at once: parallel coordinates and a spider.

const LEAST_AXIS = 74; // pixels between two parallel axes; what is wider than the page scrolls in its frame

const parallel = byId('parallel') && {
  svg: byId('parallel'),

  redraw() {
    const count = data.rewards;
    const width = Math.max(widthOf(this.svg), LEAST_AXIS * count);
    const height = 280;
    sized(this.svg, width, height);
    this.svg.setAttribute('role', 'img');
    this.svg.setAttribute('aria-label', `Parallel coordinates of ${count} rewards`);
    const [top, bottom, edge] = [44, height - 28, 44];
    const xOf = (k) => edge + (k / (count - 1)) * (width - 2 * edge);
    const good = Array.from({ length: count }, (_, k) => goodness(k));
    this.runs = new Map();
    for (const i of shown()) {
      const places = good.map((of, k) => [xOf(k), of(points[i])]);
      if (places.every(([, g]) => g !== null)) this.runs.set(i, places.map(([x, g]) => [x, bottom - g * (bottom - top)]));
    }
    this.chosen = shape('path', { class: 'run chosen' });
    this.kept = shape('path', { class: 'run kept' });
    this.hovered = shape('path', { class: 'run hovered' });
    const columns = Array.from({ length: count }, (_, k) => columnOf(k, xOf(k), top, bottom, (width - 2 * edge) / (count - 1)));
    this.svg.replaceChildren(...this.clouds(), ...columns, this.hovered, this.kept, this.chosen);
    this.mark();
  },

  // One path per colour, dominated and not: thousands of lines are a handful of elements.
  clouds() {
    const paths = new Map();
    for (const [i, run] of this.runs) {
      const kind = `run ${points[i].front ? 'on' : 'off'} c${points[i].colour}`;
      paths.set(kind, (paths.get(kind) ?? '') + pathOf(run));
    }
    const opacity = Math.max(0.08, Math.min(0.8, 12 / Math.sqrt(this.runs.size || 1) / 4));
    return [...paths].sort().map(([kind, d]) => shape('path', { class: kind, d, 'stroke-opacity': opacity }));
  },

  mark() {
    const draw = (path, i) => path.setAttribute('d', this.runs.has(i) ? pathOf(this.runs.get(i)) : '');
    draw(this.chosen, state.chosen);
    draw(this.kept, state.kept);
  },

  hover() {
    if (!this.runs) return;
    this.hovered.setAttribute('d', this.runs.has(state.hovered) ? pathOf(this.runs.get(state.hovered)) : '');
  },

  // The line nearest to a place, up and down.
  near([x, y]) {
    let [found, least] = [null, Infinity];
    for (const [i, run] of this.runs) {
      const k = Math.max(0, run.slice(0, -1).findLastIndex(([at]) => at <= x));
      const [[x0, y0], [x1, y1]] = [run[k], run[k + 1]];
      const distance = Math.abs(y0 + (y1 - y0) * Math.min(1, Math.max(0, (x - x0) / (x1 - x0))) - y);
      if (distance < least) [found, least] = [i, distance];
    }
    return least <= REACH ? found : null;
  },

  wire() {
    this.svg.addEventListener('pointermove', (event) => {
      state.hovered = event.pointerType === 'mouse' ? this.near(pointerIn(this.svg, event)) : null;
      this.hover();
    });
    this.svg.addEventListener('pointerleave', () => {
      state.hovered = null;
      this.hover();
    });
    this.svg.addEventListener('click', (event) => choose(this.near(pointerIn(this.svg, event))));
    whenResized(byId('parallel-figure'), () => this.redraw());
  },
};

const pathOf = (run) => `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join('L')}`;

function columnOf(k, x, top, bottom, room) {
  const [worst, best] = endsOf(k);
  const text = (content, y) => shape('text', { x, y, 'text-anchor': 'middle' }, content);
  return shape('g', {},
    shape('path', { class: 'axis', d: `M${x} ${top}V${bottom}` }),
    text(cut(data.metrics[k].name, Math.max(6, Math.floor(room / 7.5))), 16),
    text(short(best), 34), text(short(worst), bottom + 18));
}

const spider = byId('spider') && {
  svg: byId('spider'),

  redraw() {
    const width = Math.min(440, widthOf(this.svg));
    const radius = Math.max(60, width / 2 - 74);
    this.middle = [width / 2, radius + 32];
    this.radius = radius;
    const lowest = Math.max(...Array.from({ length: data.rewards }, (_, k) => this.at(k, 1)[1]));
    sized(this.svg, width, lowest + 32);
    this.svg.setAttribute('role', 'img');
    const rims = [0.25, 0.5, 0.75, 1].map((share) => this.polygon(share === 1 ? 'frame' : 'grid', () => share));
    const names = data.metrics.slice(0, data.rewards).map(({ name }, k) => {
      const [x, y] = this.at(k, 1 + 14 / radius);
      const anchor = Math.abs(x - this.middle[0]) < 8 ? 'middle' : x > this.middle[0] ? 'start' : 'end';
      return shape('text', { x, y: y + 4, 'text-anchor': anchor }, cut(name, 11));
    });
    const spokes = data.metrics.slice(0, data.rewards).map((_, k) => `M${this.middle.join(' ')}L${this.at(k, 1).join(' ')}`);
    this.good = Array.from({ length: data.rewards }, (_, k) => goodness(k));
    this.webs = shape('g');
    this.svg.replaceChildren(...rims, shape('path', { class: 'grid', d: spokes.join('') }), this.webs, ...names);
    this.mark();
  },

  at(k, share) {
    const angle = (2 * Math.PI * k) / data.rewards - Math.PI / 2;
    return [this.middle[0] + share * this.radius * Math.cos(angle), this.middle[1] + share * this.radius * Math.sin(angle)];
  },

  polygon(kind, shareAt) {
    const places = Array.from({ length: data.rewards }, (_, k) => this.at(k, shareAt(k)).map((v) => v.toFixed(1)).join(','));
    return shape('polygon', { class: kind, points: places.join(' ') });
  },

  // A web of each expert, of the kept and of the chosen point.
  mark() {
    const whole = (i) => this.good.every((of) => of(points[i]) !== null);
    const web = (kind, i) => this.polygon(`web ${kind}`, (k) => this.good[k](points[i]));
    const experts = shown().filter((i) => points[i].expert && whole(i)).slice(0, 8);
    const own = [['kept', state.kept], ['chosen', state.chosen]].filter(([, i]) => i !== null && whole(i));
    this.webs.replaceChildren(...experts.map((i) => web('expert', i)), ...own.map(([kind, i]) => web(kind, i)));
    const names = own.map(([kind, i]) => `${kind === 'kept' ? 'dashed' : 'filled'}: ${points[i].name}`).reverse();
    byId('spider-key').textContent = [...names, ...(experts.length ? ['thin: one ingredient alone'] : [])].join('; ');
    this.svg.setAttribute('aria-label', `Spider of ${data.rewards} rewards. ${byId('spider-key').textContent}`);
  },

  wire() {
    whenResized(byId('spider-figure'), () => this.redraw());
  },
};

for (const view of [parallel, spider]) if (view) views.push(view);
