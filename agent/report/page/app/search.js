// The search: the best so far against tokens, every candidate as a point by its maker, levels to beat as lines.

function searchTab(run, state) {
  if (!run.candidates.length) return [h('p', {}, 'No candidate has been made yet.')];
  state.fidelity = run.fidelities.includes(state.fidelity) ? state.fidelity : run.last;
  state.hidden = state.hidden || new Set();
  state.sort = state.sort || 'fitness';
  const again = () => show(run);
  const place = h('div', { class: 'chart' });
  const shown = run.byId.get(state.at || '') || run.best;
  const controls = h('div', { class: 'controls' },
    run.fidelities.length > 1 && select('fidelity', 'Measured on', run.fidelities.map((one) => [one, `${count(Number(one))} tokens`]), state.fidelity,
      (value) => { state.fidelity = value; again(); }),
    h('fieldset', { class: 'ticks' }, h('legend', {}, 'Proposed by'), run.makers.map((maker) => tick(`maker-${maker}`, makerName(maker), !state.hidden.has(maker), (on) => {
      if (on) state.hidden.delete(maker); else state.hidden.add(maker);
      again();
    }, swatch(styleOf(maker))))));
  const points = run.candidates.filter((one) => !state.hidden.has(one.proposed_by) && one.scores[state.fidelity] !== undefined);
  const lacking = run.candidates.filter((one) => one.scores[state.fidelity] === undefined).length;
  afterwards(() => chart(run, place, points, state.fidelity, shown));
  const words = h('details', {}, h('summary', {}, 'Who they are'), h('dl', { class: 'facts' }, run.makers.map((maker) => [h('dt', {}, makerName(maker)), h('dd', {}, MAKERS[maker] || maker)])));
  return [controls, words, place, levels(run, state.fidelity, rangeOf(run, points, state.fidelity)[1]),
    h('p', { class: 'soft' }, 'Fitness is the KL divergence from the dense model in nats a token; lower is better. Tokens are those evaluated, probed and computed by the brain. ',
      lacking > 0 && `${plural(lacking, 'candidate')} without a measurement on these tokens ${lacking === 1 ? 'is' : 'are'} not drawn. `, 'Click a point for its card.'),
    h('div', { class: 'split' }, h('div', {}, candidateTable(run, state)), h('div', { class: 'beside', id: 'shown' }, shown && card(run, shown)))];
}

const DASHES = [[8, 4], [2, 4], [12, 3, 2, 3], [5, 5]]; // of the levels, in their order

function lineSample(dash) {
  return h('svg', { class: 'sample', viewBox: '0 0 30 8', 'aria-hidden': 'true' }, h('line', { class: dash ? 'level' : '', x1: 0, x2: 30, y1: 4, y2: 4, 'stroke-dasharray': dash && dash.join(' ') }));
}

function levels(run, fidelity, top) {
  const found = [...run.baselines(fidelity)];
  return h('p', { class: 'legend' }, h('span', {}, lineSample(), ' best so far'),
    found.map(([name, { value, id }], index) => h('span', {}, lineSample(DASHES[index % 4]), ` ${name} `, candidateLink(id), ` ${fixed(value)}${value > top ? ', above the chart' : ''}`)));
}

// The ends of the axis: all but the worst points, and the levels that do not squeeze these into a corner.
function rangeOf(run, points, fidelity) {
  const values = points.map((one) => one.scores[fidelity]).sort((a, b) => a - b);
  const low = values[0];
  const high = Math.max(values[Math.floor(0.95 * (values.length - 1))], low * 1.02);
  const near = [...run.baselines(fidelity).values()].map((one) => one.value).filter((value) => value <= high + 0.6 * (high - low));
  return [low - 0.05 * (high - low), Math.max(high, ...near) + 0.05 * (high - low)];
}

function chart(run, place, points, fidelity, shown) {
  const colours = getComputedStyle(document.documentElement);
  const colour = (name) => colours.getPropertyValue(name).trim();
  const sorted = points.map((one) => [run.costOf(one, fidelity), one.scores[fidelity], one]).sort((a, b) => a[0] - b[0]);
  if (typeof uPlot === 'undefined') { place.replaceChildren(h('p', { class: 'note' }, 'The chart library is missing from the installation that made this page; the table below has the same.')); return; }
  if (!sorted.length) { place.replaceChildren(h('p', {}, 'Nothing to draw is chosen.')); return; }
  const makers = [...new Set(sorted.map(([, , one]) => one.proposed_by))];
  const xs = sorted.map(([x]) => x);
  const baselines = [...run.baselines(fidelity)];
  const stairs = bestSoFar(sorted);
  const range = rangeOf(run, points, fidelity);
  const series = [{}, { label: 'best so far', stroke: colour('--ink'), width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
    ...baselines.map(([name], index) => ({ label: name, stroke: colour('--soft'), width: 1.3, dash: DASHES[index % 4], points: { show: false } })),
    ...makers.map((maker) => ({ label: maker, paths: () => null, stroke: colour(`--s${styleOf(maker)}`),
      points: { show: true, size: sorted.length > 1000 ? 4 : 8, fill: colour(`--s${styleOf(maker)}`), space: 0 } })),
    { label: 'chosen', paths: () => null, stroke: colour('--ink'), points: { show: true, size: 15, width: 2, fill: 'transparent', space: 0 } }];
  const data = [xs, stairs, ...baselines.map(([, one]) => xs.map(() => one.value)),
    ...makers.map((maker) => sorted.map(([, y, one]) => (one.proposed_by === maker ? y : null))),
    sorted.map(([, y, one]) => (one === shown ? y : null))];
  const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } };
  const width = Math.max(280, place.clientWidth || 600);
  const plot = new uPlot({
    width, height: Math.min(380, Math.max(240, width * 0.45)), legend: { show: false }, cursor: { drag: { x: false, y: false, click: () => {} }, points: { show: false } },
    scales: { x: { time: false, range: (_, min, max) => [min - 0.03 * (max - min || 1), max + 0.03 * (max - min || 1)] }, y: { range } },
    axes: [{ ...axis, label: 'tokens spent', labelSize: 20, values: (_, ticks) => ticks.map(short), space: 60 },
      { ...axis, size: 58, values: (_, ticks) => ticks.map((value) => String(Number(value.toPrecision(4)))) }], series }, data, place);
  plot.root.setAttribute('role', 'img');
  plot.root.setAttribute('aria-label', `Best fitness so far against tokens: ${fixed(stairs[stairs.length - 1])} after ${count(xs[xs.length - 1])} tokens; ${baselines.map(([name, one]) => `${name} ${fixed(one.value)}`).join(', ')}`);
  const hint = h('div', { class: 'hint', hidden: true });
  plot.over.append(hint);
  const nearest = (event) => {
    const box = plot.over.getBoundingClientRect();
    let found = null;
    let least = 400; // pixels, squared
    for (const [x, y, one] of sorted) {
      const dx = plot.valToPos(x, 'x') - (event.clientX - box.left);
      const dy = plot.valToPos(y, 'y') - (event.clientY - box.top);
      if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; found = [x, y, one]; }
    }
    return found;
  };
  plot.over.addEventListener('mousemove', (event) => {
    const found = nearest(event);
    hint.hidden = !found;
    if (!found) return;
    const [x, y, one] = found;
    hint.textContent = `${one.id}: ${fixed(y)}, ${makerName(one.proposed_by)}`;
    const left = plot.valToPos(x, 'x');
    hint.style.setProperty('left', `${Math.min(left + 8, plot.over.clientWidth - 150)}px`);
    hint.style.setProperty('top', `${plot.valToPos(y, 'y') + 8}px`);
  });
  plot.over.addEventListener('click', (event) => {
    const found = nearest(event);
    if (found) go(`search/${found[2].id}`);
  });
}

// The least value so far at every point; points of one cost are there together.
function bestSoFar(sorted) {
  const stairs = new Array(sorted.length);
  let best = Infinity;
  for (let from = 0; from < sorted.length;) {
    let to = from;
    while (to < sorted.length && sorted[to][0] === sorted[from][0]) { best = Math.min(best, sorted[to][1]); to += 1; }
    stairs.fill(best, from, to);
    from = to;
  }
  return stairs;
}

const PAGE = 100; // rows of a table that are shown at once

function candidateTable(run, state) {
  const orders = { fitness: (one) => run.fitness(one, state.fidelity) ?? Infinity, newest: (one) => -run.candidates.indexOf(one), change: (one) => run.change(one) ?? Infinity };
  const shown = run.candidates.filter((one) => !state.hidden.has(one.proposed_by)).map((one) => [orders[state.sort](one), one])
    .sort((a, b) => a[0] - b[0]).map(([, one]) => one);
  state.rows = state.rows || PAGE;
  return h('section', {},
    h('div', { class: 'row' }, h('h2', {}, plural(shown.length, 'candidate')),
      select('sort', 'Order', [['fitness', 'best first'], ['change', 'most improved first'], ['newest', 'newest first']], state.sort, (value) => { state.sort = value; show(run); })),
    table(['candidate', 'fitness', 'change', 'proposed by', 'generation'], shown.slice(0, state.rows).map((one) => [
      h('a', { href: `#search/${one.id}`, 'aria-current': state.at === one.id ? 'true' : null }, one.id),
      fixed(run.fitness(one, state.fidelity)), signed(run.change(one)),
      [swatch(styleOf(one.proposed_by)), makerName(one.proposed_by)], String(one.generation)]), { caption: 'Candidates' }),
    shown.length > state.rows && h('button', { type: 'button', on: { click: () => { state.rows += 5 * PAGE; show(run); } } }, `Show more (${count(shown.length - state.rows)} left)`));
}
