// The best fitness so far against tokens, a chart a sparsity and what fitness is of: a thin line a run, a thick one their mean, a dashed level.

const NEAR = 0.8; // how far from the curves a level is still on the chart, as a share of their span

function curvesTab(one, state) {
  if (!one.curves.length) return [h('p', {}, 'No finished run of an arm that searches has a curve yet.')];
  state.hidden = state.hidden || new Set();
  const again = () => show(one);
  const drawn = one.ordered.filter((arm) => one.curves.some(({ series }) => series.some((each) => each.arm === arm)));
  return [
    h('p', { class: 'soft' }, 'Fitness (KL, nats a token) on the tokens of the search, against all tokens that were spent: evaluated, probed and the brain\'s. A thin line is a seed, a thick one their mean, a dashed one an arm that does not search, where it is not far off.'),
    h('div', { class: 'controls' }, h('fieldset', { class: 'ticks' }, h('legend', {}, 'Arms'), drawn.map((arm, index) => tick(`arm-${index}`, arm, !state.hidden.has(arm), (on) => {
      if (on) state.hidden.delete(arm); else state.hidden.add(arm);
      again();
    }, swatch(one.styles.get(arm)))))),
    one.curves.map(({ sparsity, on, series }) => {
      const where = `at ${sparsity} sparsity${on ? `, ${on}` : ''}`; // arms that are measured on other tokens are not comparable
      const shown = series.filter((each) => !state.hidden.has(each.arm));
      const place = h('div', { class: 'chart' });
      afterwards(() => curveChart(one, place, shown, `Best fitness so far ${where}`));
      return h('section', {}, h('h2', {}, `A${where.slice(1)}`), place, endsTable(one, shown));
    })];
}

// The same in figures.
function endsTable(one, series) {
  return table(['arm', 'runs', 'mean fitness at the end', 'tokens'], series.map((each) => {
    const [tokens, fitness] = each.mean.length ? each.mean[each.mean.length - 1] : [undefined, each.level];
    return [armName(one, each.arm), each.runs.length ? String(each.runs.length) : '-', fixed(fitness), count(tokens)];
  }), { label: 'Where the curves end' });
}

function levelAt(stairs, x) {
  if (x < stairs[0][0] || x > stairs[stairs.length - 1][0]) return null;
  let low = 0;
  let high = stairs.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (stairs[middle][0] <= x) low = middle; else high = middle - 1;
  }
  return stairs[low][1];
}

function curveChart(one, place, shown, title) {
  if (typeof uPlot === 'undefined') { place.replaceChildren(h('p', { class: 'note' }, 'The chart library is missing from the installation that made this page; the table below has the same.')); return; }
  const curves = shown.filter((each) => each.runs.length);
  if (!curves.length) { place.replaceChildren(h('p', {}, 'Nothing to draw is chosen.')); return; }
  const colours = getComputedStyle(document.documentElement);
  const colour = (name) => colours.getPropertyValue(name).trim();
  const own = (arm) => colour(`--s${one.styles.get(arm) ?? 8}`);
  const lines = curves.flatMap((each) => [...(each.runs.length > 1 ? each.runs.map((run) => ({ arm: each.arm, stairs: run, thin: true })) : []), { arm: each.arm, stairs: each.mean }]);
  const best = lines.flatMap(({ stairs }) => stairs.map(([, fitness]) => fitness));
  const [least, most] = [best.reduce((a, b) => Math.min(a, b)), best.reduce((a, b) => Math.max(a, b))];
  const span = most - least || Math.abs(least) * 0.1 || 1;
  const levels = shown.filter((each) => !each.runs.length && each.level >= least - NEAR * span && each.level <= most + NEAR * span);
  const ends = [least, most, ...levels.map((each) => each.level)];
  const xs = [...new Set(lines.flatMap(({ stairs }) => stairs.map(([tokens]) => tokens)))].sort((a, b) => a - b);
  const data = [xs, ...lines.map(({ stairs }) => xs.map((x) => levelAt(stairs, x))), ...levels.map((each) => xs.map(() => each.level))];
  const faded = (value) => `color-mix(in srgb, ${value} 45%, transparent)`;
  const series = [{}, ...lines.map(({ arm, thin }) => ({ label: arm, stroke: thin ? faded(own(arm)) : own(arm), width: thin ? 1 : 2.4, dash: one.colours.indexOf(arm) > 8 ? [10, 3] : undefined,
    paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } })),
  ...levels.map(({ arm }) => ({ label: arm, stroke: own(arm), width: 1.5, dash: [4, 4], points: { show: false } }))];
  const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } };
  const width = Math.max(280, place.clientWidth || 600);
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  const margin = 0.04 * (high - low || span);
  const plot = new uPlot({
    width, height: Math.min(360, Math.max(240, width * 0.4)), legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: false, range: (_, from, to) => [from - 0.03 * (to - from || 1), to + 0.03 * (to - from || 1)] }, y: { range: [low - margin, high + margin] } },
    axes: [{ ...axis, label: 'tokens spent', labelSize: 20, values: (_, ticks) => ticks.map(short), space: 60 },
      { ...axis, size: 58, values: (_, ticks) => ticks.map((value) => String(Number(value.toPrecision(4)))) }], series }, data, place);
  plot.root.setAttribute('role', 'img');
  plot.root.setAttribute('aria-label', `${title}: ${shown.map((each) => (each.mean.length ? `${each.arm} ends at ${fixed(each.mean[each.mean.length - 1][1])} after ${count(each.mean[each.mean.length - 1][0])} tokens` : `${each.arm} is at ${fixed(each.level)}`)).join('; ')}`);
  const hint = h('div', { class: 'hint', hidden: true });
  plot.over.append(hint);
  const named = [...lines.filter(({ thin }) => !thin), ...levels.map((each) => ({ arm: each.arm, stairs: [[xs[0], each.level], [xs[xs.length - 1], each.level]] }))];
  plot.over.addEventListener('mousemove', (event) => {
    const box = plot.over.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const x = plot.posToVal(left, 'x');
    const near = named.map(({ arm, stairs }) => [arm, levelAt(stairs, x)]).filter(([, value]) => value !== null)
      .map(([arm, value]) => [arm, value, Math.abs(plot.valToPos(value, 'y') - top)]).sort((a, b) => a[2] - b[2])[0];
    hint.hidden = !near || near[2] > 24;
    if (hint.hidden) return;
    hint.textContent = `${near[0]}: ${fixed(near[1])}`;
    hint.style.setProperty('left', `${Math.max(0, Math.min(left + 8, plot.over.clientWidth - 150))}px`);
    hint.style.setProperty('top', `${plot.valToPos(near[1], 'y') + 8}px`);
  });
}
