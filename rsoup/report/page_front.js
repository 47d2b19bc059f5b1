// The front: any metric or λ against any other, with hover, touch and keyboard.

const EDGE = { left: 62, top: 14, right: 16, bottom: 44 };
const REACH = 24; // pixels from a point at which a touch still means it

const axes = { across: byId('across'), up: byId('up') };

// [value, standard error] of a point along an axis: m a metric, r its report split, l a λ.
function along(axis, point) {
  const k = Number(axis.slice(1));
  if (axis[0] === 'l') return [point.lambda[k], 0];
  const score = axis[0] === 'r' ? point.report?.[k] : point.select[k];
  return score ? [score[0], score[2] ?? 0] : null;
}

function axisName(axis) {
  const k = Number(axis.slice(1));
  if (axis[0] === 'l') return `λ ${data.ingredients[k]}`;
  const { name, up } = data.metrics[k];
  return `${name}${axis[0] === 'r' ? ', report' : ''}${up ? '' : ' (less is better)'}`;
}

const front = {
  svg: byId('front'),
  tip: byId('tip'),
  placed: [], // {i, x, y, xBar, yBar} of every point drawn, in pixels
  marks: new Map(),
  current: null, // the point that the Tab key comes to

  redraw() {
    const focused = this.svg.contains(document.activeElement);
    const width = widthOf(this.svg);
    const height = Math.round(Math.min(480, Math.max(260, width * 0.7)));
    sized(this.svg, width, height);
    this.svg.replaceChildren();
    this.marks.clear();
    const found = shown()
      .map((i) => ({ i, x: along(axes.across.value, points[i]), y: along(axes.up.value, points[i]) }))
      .filter((p) => p.x && p.y);
    byId('front-note').textContent = noteOf(found.length);
    this.svg.setAttribute('role', 'group');
    this.svg.setAttribute('aria-label', `${axisName(axes.up.value)} against ${axisName(axes.across.value)}: ${found.length} points`);
    this.hint(null);
    this.placed = found.length ? this.place(found, width, height) : [];
    this.svg.append(this.bars(), ...this.lines(), this.points(), ...this.names());
    this.ring = shape('g', { 'aria-hidden': 'true' });
    this.svg.append(this.ring);
    this.mark();
    if (focused) this.marks.get(this.current)?.focus();
  },

  place(found, width, height) {
    const [right, bottom] = [width - EDGE.right, height - EDGE.bottom];
    const ends = (key) => found.flatMap((p) => [p[key][0] - p[key][1], p[key][0] + p[key][1]]);
    const xs = ticksBetween(ends('x'), Math.max(3, Math.round(width / 110)));
    const ys = ticksBetween(ends('y'), Math.max(3, Math.round(height / 70)));
    const toX = (value) => EDGE.left + shareOf(value, xs) * (right - EDGE.left);
    const toY = (value) => bottom - shareOf(value, ys) * (bottom - EDGE.top);
    this.svg.append(frameOf(xs, ys, toX, toY, right, bottom));
    return found.map(({ i, x, y }) => ({
      i, x: toX(x[0]), y: toY(y[0]),
      xBar: x[1] ? [toX(x[0] - x[1]), toX(x[0] + x[1])] : null,
      yBar: y[1] ? [toY(y[0] - y[1]), toY(y[0] + y[1])] : null,
    }));
  },

  // Bars that hardly leave their mark would only give it corners.
  bars() {
    const seen = (bar) => bar && Math.abs(bar[1] - bar[0]) > 16;
    const pieces = this.placed.flatMap((p) => [
      seen(p.xBar) ? `M${p.xBar[0]} ${p.y}H${p.xBar[1]}` : '', seen(p.yBar) ? `M${p.x} ${p.yBar[0]}V${p.yBar[1]}` : '',
    ]);
    return shape('path', { class: 'bar', d: pieces.join('') });
  },

  // Two rewards: the front of each training step. One of two λ: the points of each step and scale in order.
  lines() {
    const overLambda = axes.across.value[0] === 'l' && data.ingredients.length === 2;
    const twoRewards = data.rewards === 2 && ['m0m1', 'm1m0'].includes(axes.across.value + axes.up.value);
    if (!overLambda && !twoRewards) return [];
    const runs = new Map();
    for (const p of this.placed) {
      const point = points[p.i];
      if (twoRewards && !point.front) continue;
      const key = twoRewards ? stepOf(point) : `${stepOf(point)} ${point.scale}`;
      runs.set(key, [...(runs.get(key) ?? []), p]);
    }
    return [...runs.values()].map((run) => {
      const d = run.sort((a, b) => a.x - b.x || a.y - b.y).map((p) => `${p.x},${p.y}`).join(' ');
      return shape('polyline', { class: `line c${points[run[0].i].colour}`, points: d });
    });
  },

  points() {
    const group = shape('g', { role: 'listbox', 'aria-label': 'Measured points' });
    const rank = (p) => (points[p.i].front ? 1 : 0) + (points[p.i].expert ? 2 : 0);
    for (const p of [...this.placed].sort((a, b) => rank(a) - rank(b))) {
      const element = markOf(p);
      this.marks.set(p.i, element);
      group.append(element);
    }
    if (!this.placed.length) group.removeAttribute('role');
    return group;
  },

  // The ingredients' names at their own points, where that is legible.
  names() {
    const alone = this.placed.filter((p) => points[p.i].expert);
    if (alone.length > 4) return [];
    const middle = EDGE.left + (this.svg.clientWidth - EDGE.left - EDGE.right) / 2;
    return alone.map(({ i, x, y }) => shape('text', {
      class: 'name', x: x + (x < middle ? 12 : -12), y: y < 40 ? y + 20 : y - 8, 'text-anchor': x < middle ? 'start' : 'end', 'aria-hidden': 'true',
    }, cut(points[i].expert, 18)));
  },

  mark() {
    this.ring.replaceChildren();
    for (const [i, kind] of [[state.kept, 'kept'], [state.chosen, 'chosen']]) {
      const p = this.placed.find((q) => q.i === i);
      if (p) this.ring.append(shape('circle', { class: kind, cx: p.x, cy: p.y, r: kind === 'kept' ? 13 : 10 }));
    }
    for (const [i, element] of this.marks) {
      if (element.getAttribute('aria-selected') !== String(i === state.chosen)) {
        element.setAttribute('aria-selected', i === state.chosen);
      }
    }
    this.land(this.marks.has(state.chosen) ? state.chosen : this.placed[0]?.i ?? null);
  },

  // One point at a time can be reached with Tab; arrows go on from it.
  land(i) {
    this.marks.get(this.current)?.setAttribute('tabindex', -1);
    this.current = i;
    this.marks.get(i)?.setAttribute('tabindex', 0);
  },

  near(event, reach) {
    const [x, y] = pointerIn(this.svg, event);
    let [found, least] = [null, reach * reach];
    for (const p of this.placed) {
      const distance = (p.x - x) ** 2 + (p.y - y) ** 2;
      if (distance <= least) [found, least] = [p.i, distance];
    }
    return found;
  },

  // Shows what is known of a point beside it.
  hint(i) {
    state.hovered = i;
    for (const view of views) view.hover?.();
    const p = i === null ? null : this.placed.find((q) => q.i === i);
    this.tip.hidden = !p;
    if (!p) return;
    this.tip.replaceChildren(...linesOf(points[i]).map((line) => make('div', {}, line)));
    const room = this.svg.parentElement;
    const left = Math.min(Math.max(0, p.x + 14), Math.max(0, room.clientWidth - this.tip.offsetWidth));
    const above = p.y - this.tip.offsetHeight - 14;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above > 0 ? above : p.y + 14}px`;
  },

  // Arrow keys go through the points from left to right; Home and End to the ends.
  key(event) {
    const order = [...this.placed].sort((a, b) => a.x - b.x || b.y - a.y || a.i - b.i).map((p) => p.i);
    const at = order.indexOf(this.current);
    const steps = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: order.length - 1 };
    if (event.key === 'Enter' || event.key === ' ') choose(this.current);
    else if (event.key === 'Escape') this.hint(null);
    else if (event.key in steps) {
      this.land(order[Math.min(order.length - 1, Math.max(0, steps[event.key]))] ?? null);
      this.marks.get(this.current)?.focus();
    } else return;
    event.preventDefault();
  },

  wire() {
    this.svg.addEventListener('pointermove', (event) => {
      if (event.pointerType === 'mouse') this.hint(this.near(event, 16));
    });
    this.svg.addEventListener('pointerleave', () => this.hint(null));
    this.svg.addEventListener('click', (event) => choose(this.near(event, REACH)));
    const figure = byId('front-figure'); // an SVG that listens for focus can itself be reached with Tab
    figure.addEventListener('focusin', (event) => this.hint(Number(event.target.dataset.i)));
    figure.addEventListener('focusout', () => this.hint(null));
    this.svg.addEventListener('keydown', (event) => this.key(event));
    for (const axis of Object.values(axes)) axis.addEventListener('change', () => this.redraw());
    whenResized(byId('front-figure'), () => this.redraw());
  },
};

function ticksBetween(values, count) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return ticksOf(low, high, count);
}

function frameOf(xs, ys, toX, toY, right, bottom) {
  const group = shape('g', { 'aria-hidden': 'true' });
  const text = (content, attributes) => group.append(shape('text', attributes, content));
  group.append(shape('rect', { class: 'frame', x: EDGE.left, y: EDGE.top, width: right - EDGE.left, height: bottom - EDGE.top }));
  const grid = [...xs.map((v) => `M${toX(v)} ${EDGE.top}V${bottom}`), ...ys.map((v) => `M${EDGE.left} ${toY(v)}H${right}`)];
  group.append(shape('path', { class: 'grid', d: grid.join('') }));
  tickTexts(xs).forEach((t, i) => text(t, { x: toX(xs[i]), y: bottom + 16, 'text-anchor': 'middle' }));
  tickTexts(ys).forEach((t, i) => text(t, { x: EDGE.left - 6, y: toY(ys[i]) + 4, 'text-anchor': 'end' }));
  const letters = (room) => Math.max(8, Math.floor(room / 7));
  text(cut(axisName(axes.across.value), letters(right - EDGE.left)), { x: (EDGE.left + right) / 2, y: bottom + 36, 'text-anchor': 'middle' });
  text(cut(axisName(axes.up.value), letters(bottom - EDGE.top)), {
    transform: `translate(13 ${(EDGE.top + bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle',
  });
  return group;
}

function markOf({ i, x, y }) {
  const point = points[i];
  const attributes = {
    class: `mark ${point.front ? 'front' : 'pale'} c${point.colour}`, role: 'option', tabindex: -1, 'data-i': i,
    'aria-label': linesOf(point).join('; '),
  };
  if (!point.expert) return shape('circle', { ...attributes, cx: x, cy: y, r: points.length > 300 ? 3.5 : 5 });
  return shape('polygon', { ...attributes, points: `${x},${y - 7} ${x + 7},${y} ${x},${y + 7} ${x - 7},${y}` });
}

function linesOf(point) {
  const scores = data.metrics.flatMap(({ name }, k) => (point.select[k] ? [`${name} ${point.select[k][1]}`] : []));
  return [mixOf(point), ...(point.series ? [point.series] : []), ...scores, ...(point.front ? [] : ['dominated'])];
}

function noteOf(count) {
  const some = count ? `${count} points. Filled: no other beats it in every reward. Diamond: one ingredient alone.` : 'No point to show.';
  const errors = points.some((point) => point.select.some((score) => score?.[2])) ? ' Bars: one standard error, where it is larger than the mark.' : '';
  return `${some}${count ? errors : ''}`;
}

views.push(front);
