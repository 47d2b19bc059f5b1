// The chosen point's panel, the comparison, the tables; and everything put together.

const panel = {
  mark() {
    const point = points[state.chosen];
    byId('chosen').textContent = point ? point.name : 'No point is shown';
    byId('about').textContent = point ? aboutOf(point) : '';
    byId('values').replaceChildren(...(point ? rowsOf(point) : []));
    byId('command').replaceChildren(...wordsOf(point?.command ?? ''));
    byId('make').hidden = !point?.command;
    byId('copy').hidden = !point?.command || point.altered;
    byId('keep').hidden = !point;
    byId('copied').textContent = point?.altered ? 'This command has characters that cannot be shown; take it from metrics.json.' : '';
    byId('said').textContent = point ? `Chosen: ${point.name}. ${linesOf(point).join('; ')}` : 'No point is shown.';
  },

  async copy() {
    const code = byId('command');
    try {
      await navigator.clipboard.writeText(code.textContent);
      byId('copied').textContent = 'Copied.';
    } catch {
      getSelection().selectAllChildren(code);
      code.focus();
      byId('copied').textContent = 'Selected: press Ctrl+C or ⌘C.';
    }
  },

  wire() {
    byId('copy').addEventListener('click', () => this.copy());
    byId('keep').addEventListener('click', () => {
      if (state.chosen === null) return;
      state.kept = state.chosen;
      mark();
      byId('copied').textContent = `Kept ${points[state.kept].name}: now choose another point.`;
    });
    byId('forget').addEventListener('click', () => {
      state.kept = null;
      mark();
      byId('keep').focus();
    });
  },
};

function aboutOf(point) {
  const parts = [mixOf(point), point.series, point.expert ? 'one ingredient alone' : '', point.front ? 'on the front' : 'dominated', point.from];
  return parts.filter(Boolean).join(' · ');
}

// A word is broken only where it is longer than a line, so that `--base` stays whole; the text is the command's.
function wordsOf(command) {
  return command.split(' ').flatMap((word, i) => [i ? ' ' : '', make('span', {}, word)]);
}

function rowsOf(point) {
  const split = points.some((other) => other.report);
  return data.metrics.map(({ name }, k) => make('tr', {},
    make('th', { scope: 'row' }, name),
    make('td', {}, point.select[k]?.[1] ?? '–'),
    ...(split ? [make('td', {}, point.report?.[k]?.[1] ?? '–')] : [])));
}

const comparison = {
  mark() {
    const [a, b] = [points[state.chosen], points[state.kept]];
    byId('compare').hidden = !a || !b || a === b;
    if (a && b) {
      byId('compare-a').textContent = a.name;
      byId('compare-b').textContent = b.name;
      byId('differences').replaceChildren(...differencesOf(a, b));
    }
    if (byId('left')) byId('answers').replaceChildren(...answersOf([state.chosen, state.kept]));
  },
};

function differencesOf(a, b) {
  const shares = data.ingredients.map((name, i) => [`λ ${name}`, short(a.lambda[i]), short(b.lambda[i]), signed(a.lambda[i] - b.lambda[i])]);
  const scores = data.metrics.map(({ name }, k) => [name, a.select[k]?.[1] ?? '–', b.select[k]?.[1] ?? '–', differenceOf(a.select[k], b.select[k])]);
  return [...shares, ...scores].map(([name, ...cells]) => make('tr', {}, make('th', { scope: 'row' }, name), ...cells.map((c) => make('td', {}, c))));
}

const signed = (value) => `${value > 0 ? '+' : ''}${short(value)}`;

function differenceOf(a, b) {
  if (!a || !b) return '–';
  const error = a.length > 2 && b.length > 2 ? ` ± ${Number(Math.hypot(a[2], b[2]).toPrecision(2))}` : '';
  return `${signed(a[0] - b[0])}${error}`;
}

// What evaluators left of these points, a column each; the same prompt stands beside itself.
function answersOf(numbers) {
  const chosen = [...new Set(numbers)].filter((i) => i !== null && points[i]);
  const folds = chosen.map((i) => document.querySelector(`details.left[data-point="${i}"]`));
  if (!folds.some(Boolean)) return [make('p', { class: 'faint' }, 'Nothing was left of this point.')];
  const grid = make('div', { class: `beside beside-${chosen.length}` });
  grid.append(...chosen.map((i) => make('h4', {}, points[i].name)));
  for (const [selector, key] of [['.sample', (e) => e.dataset.prompt], ['.image', (e) => e.querySelector('figcaption').textContent]]) {
    const found = folds.map((fold) => new Map([...(fold?.querySelectorAll(selector) ?? [])].map((e) => [key(e), e])));
    const keys = [...new Set(found.flatMap((own) => [...own.keys()]))];
    grid.append(...keys.flatMap((k) => found.map((own) => own.get(k)?.cloneNode(true) ?? make('p', { class: 'faint' }, '–'))));
  }
  return [grid];
}

const tables = {
  rows: [...document.querySelectorAll('table.sortable tr[data-point]')],

  redraw() {
    for (const row of this.rows) row.hidden = !isShown(Number(row.dataset.point));
    this.mark();
  },

  mark() {
    this.marked?.removeAttribute('aria-current');
    this.marked = this.rows[state.chosen];
    this.marked?.setAttribute('aria-current', 'true');
  },

  wire() {
    this.rows.sort((a, b) => a.dataset.point - b.dataset.point);
    for (const table of document.querySelectorAll('table.sortable')) {
      [...table.tHead.rows[0].cells].forEach((head, at) => sortable(table, head, at));
      table.tBodies[0].addEventListener('click', (event) => {
        const row = event.target.closest('tr[data-point]');
        if (row) choose(Number(row.dataset.point));
      });
    }
  },
};

function sortable(table, head, at) {
  const button = make('button', { type: 'button' }, head.textContent);
  head.replaceChildren(button);
  button.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [keyOf(row.cells[at].textContent), row]);
    keyed.sort(([a], [b]) => emptyLast(a, b) || (down ? -1 : 1) * inOrder(a, b));
    body.append(...keyed.map(([, row]) => row));
  });
}

// `0.71 ± 0.01 (n = 3)` and `1/3` are sorted as the numbers they begin with; what is not there comes last.
function keyOf(text) {
  const found = /^(-?[\d.]+(?:e[+-]?\d+)?)(?:\/(\d+))?(?: ± \S+)?(?: \(n = \d+\))?$/.exec(text);
  if (found) return Number(found[1]) / Number(found[2] ?? 1);
  return text === '–' ? '' : text;
}

const emptyLast = (a, b) => (a === '' || b === '' ? (a === '') - (b === '') : 0);

function inOrder(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a) < String(b) ? -1 : Number(String(a) > String(b));
}

function filterBy(name) {
  const boxes = [...(byId(name)?.querySelectorAll('input') ?? [])];
  for (const box of boxes) {
    box.addEventListener('change', () => {
      state[name] = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
      redraw();
    });
  }
}

function begin() {
  views.push(panel, comparison);
  byId('explore').hidden = false;
  for (const fold of document.querySelectorAll('details.shown-above')) fold.open = false;
  byId('hide').addEventListener('change', (event) => {
    state.hide = event.target.checked;
    redraw();
  });
  filterBy('steps');
  filterBy('scales');
  for (const view of views) view.wire?.();
  redraw();
}

views.push(tables);
if (byId('explore')) begin();
else tables.wire();
