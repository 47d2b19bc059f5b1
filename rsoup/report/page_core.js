// What every view shares: the data, what is chosen, elements, axes. Texts of the document reach the page through
// textContent and attributes only.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId('data').textContent);
const points = data.points;
const mixOf = (point) => `λ ${data.ingredients.map((name, i) => `${name} ${point.shown[i]}`).join(', ')}`;
const stepOf = (point) => String(point.step ?? 'none');

const state = {
  chosen: null, // the number of a point, like all others here
  kept: null,
  hovered: null,
  hide: false,
  steps: null, // null: all of them
  scales: null,
};

// A view redraws, marks included, when the points shown change; it marks when the chosen point changes.
const views = [];

function redraw() {
  if (state.chosen === null || !isShown(state.chosen)) state.chosen = preference.best() ?? shown()[0] ?? null;
  for (const view of views) (view.redraw ?? view.mark).call(view);
}

function mark() {
  for (const view of views) view.mark?.();
}

function isShown(i) {
  const point = points[i];
  return (!state.hide || point.front) && (!state.steps || state.steps.has(stepOf(point)))
    && (!state.scales || state.scales.has(point.scale));
}

function shown() {
  return points.map((_, i) => i).filter(isShown);
}

function choose(i) {
  if (i === null || i === state.chosen) return;
  state.chosen = i;
  mark();
}

// Elements

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(byId('front').namespaceURI, tag), attributes, children);
}

// The room an SVG has; its units are pixels, so that letters are as large on a phone as elsewhere.
function sized(svg, width, height) {
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('width', width);
  svg.setAttribute('height', height);
}

function widthOf(svg) {
  const style = getComputedStyle(svg.parentElement);
  return Math.max(200, svg.parentElement.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

function whenResized(element, call) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    call();
  }).observe(element);
}

function pointerIn(svg, event) {
  const box = svg.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

// Numbers and axes

const inside = (value) => Math.min(1e300, Math.max(-1e300, value));

// Evenly spaced round numbers around [low, high], about `count` of them.
function ticksOf(low, high, count) {
  let [from, to] = [inside(low), inside(high)];
  const middle = from / 2 + to / 2;
  const finest = Math.max(Math.abs(middle), 1e-280) * 1e-12;
  if (to / 2 - from / 2 < finest) {
    const half = from === to ? Math.abs(middle) * 0.05 || 1 : finest;
    [from, to] = [middle - half, middle + half];
  }
  const raw = (to / 2 - from / 2) / Math.max(1, count - 1) * 2;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= raw * (1 - 1e-9));
  const first = Math.floor(from / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(to / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function tickTexts(ticks) {
  const highest = Math.max(...ticks.map(Math.abs));
  const step = ticks[1] / 2 - ticks[0] / 2;
  if (highest >= 1e-4 && highest < 1e6 && step > 1e-9) {
    const places = [...Array(13).keys()].find((p) => ticks.every((t) => Math.abs(t - Number(t.toFixed(p))) < step * 1e-6)) ?? 12;
    return ticks.map((t) => t.toFixed(places).replace(/^-(0\.?0*)$/, '$1'));
  }
  const texts = (digits) => ticks.map((t) => (t === 0 ? '0' : t.toExponential(digits)));
  const digits = [...Array(16).keys()].find((d) => new Set(texts(d)).size === ticks.length) ?? 16;
  return texts(digits);
}

// Where a value lies between the first and the last tick, 0 to 1.
function shareOf(value, ticks) {
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  return Math.min(1, Math.max(0, (value / 2 - low / 2) / (high / 2 - low / 2)));
}

const short = (value) => String(Number(value.toPrecision(3)));

// The worst and the best value of a reward over all measured points.
function endsOf(k) {
  let [low, high] = [Infinity, -Infinity];
  for (const point of points) {
    const score = point.select[k];
    if (!score) continue;
    low = Math.min(low, score[0]);
    high = Math.max(high, score[0]);
  }
  return data.metrics[k].up ? [low, high] : [high, low];
}

// 0 for the worst measured value of a reward, 1 for the best, ½ where all are equal.
function goodness(k) {
  const [worst, best] = endsOf(k);
  const whole = best / 2 - worst / 2;
  return (point) => (point.select[k] ? (whole ? (point.select[k][0] / 2 - worst / 2) / whole : 0.5) : null);
}

// Preference and mix

// Σ μ̂ₖ rₖ, a reward to be minimised counted negative, divided by its span where rewards are normalised.
function utility(point, weights, normalised) {
  let sum = 0;
  for (let k = 0; k < data.rewards; k += 1) {
    const score = point.select[k];
    if (!score) return -Infinity;
    const value = data.metrics[k].up ? score[0] : -score[0];
    sum += weights[k] * (normalised ? value / data.spans[k] : value);
  }
  return Number.isNaN(sum) ? -Infinity : sum;
}

// The point of the largest score; the first of several, null of none.
function largest(candidates, score) {
  let [found, best] = [null, -Infinity];
  for (const i of candidates) {
    const value = score(points[i]);
    if (value > best) [found, best] = [i, value];
  }
  return found;
}

// How far two soups are apart: Σ (ηλᵢ − η′λ′ᵢ)², for η·λ is what is added to the base.
function apart(point, mix, scale) {
  const own = Number(fraction(point.scale));
  return point.lambda.reduce((sum, share, i) => sum + (own * share - scale * mix[i]) ** 2, 0);
}

function fraction(text) {
  const [above, below] = text.split('/');
  return below === undefined ? Number(above) : Number(above) / Number(below);
}

// Sliders that sum to 1: the others keep their proportions.
function rebalanced(weights, k, value) {
  const rest = weights.reduce((sum, weight, i) => (i === k ? sum : sum + weight), 0);
  const share = (weight) => (rest > 0 ? (weight / rest) * (1 - value) : (1 - value) / (weights.length - 1));
  return weights.map((weight, i) => (i === k ? value : share(weight)));
}

const percent = (weight) => weight.toFixed(2);
