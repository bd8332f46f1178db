// The graph of candidates: generations from left to right, within one the better above; survivors are filled.

const ACROSS = [46, 150]; // pixels between generations, at least and at the most
const DOWN = 17; // and between candidates

function lineageTab(run, state) {
  if (!run.candidates.length) return [h('p', {}, 'No candidate has been made yet.')];
  state.maker = state.maker || '';
  state.which = state.which || (run.candidates.length > 1500 ? 'survivors' : 'all');
  const chosen = run.byId.get(state.at || '') || run.best;
  const again = () => show(run);
  const kept = filtered(run, state, chosen);
  return [
    h('div', { class: 'controls' },
      select('which', 'Show', [['all', 'all candidates'], ['survivors', 'survivors and what they come from'], ['improved', 'those better than their parents'], ['line', 'what the chosen one comes from']],
        state.which, (value) => { state.which = value; again(); }),
      select('maker', 'Proposed by', [['', 'anybody'], ...run.makers.map((one) => [one, makerName(one)])], state.maker, (value) => { state.maker = value; again(); })),
    h('p', { class: 'legend' }, run.makers.map((one) => h('span', {}, swatch(styleOf(one)), ` ${makerName(one)}`)),
      h('span', {}, h('span', { class: 'dot full' }), ' survived'), h('span', {}, h('span', { class: 'dot' }), ' did not')),
    h('p', { class: 'soft' }, `${plural(kept.length, 'candidate')} of ${count(run.candidates.length)}. Generations go from left to right, the best of each is at the top. Click one, or use the arrow keys, for its card; its parents and children are drawn bold.`),
    h('div', { class: 'split wide' }, graph(run, kept, chosen), h('div', { class: 'beside' }, chosen && card(run, chosen)))];
}

function filtered(run, state, chosen) {
  let kept = run.candidates;
  if (state.which === 'survivors') {
    const names = new Set();
    for (const id of run.survivors) for (const name of run.ancestors(id)) names.add(name);
    kept = kept.filter((one) => names.has(one.id));
  } else if (state.which === 'improved') kept = kept.filter((one) => run.change(one) < 0);
  else if (state.which === 'line') {
    const names = chosen ? run.ancestors(chosen.id) : new Set();
    kept = kept.filter((one) => names.has(one.id));
  }
  return state.maker ? kept.filter((one) => one.proposed_by === state.maker) : kept;
}

function graph(run, kept, chosen) {
  const columns = new Map();
  for (const one of kept) {
    if (!columns.has(one.generation)) columns.set(one.generation, []);
    columns.get(one.generation).push(one);
  }
  const numbers = [...columns.keys()].sort((a, b) => a - b);
  const places = new Map();
  const across = Math.min(ACROSS[1], Math.max(ACROSS[0], 640 / numbers.length));
  let tallest = 1;
  numbers.forEach((number, column) => {
    const ordered = columns.get(number).map((one) => [run.known(one) ?? Infinity, one]).sort((a, b) => a[0] - b[0]);
    tallest = Math.max(tallest, ordered.length);
    ordered.forEach(([, one], row) => places.set(one.id, [34 + column * across, 30 + row * DOWN]));
  });
  const near = new Set(chosen ? [chosen.id, ...chosen.parents, ...(run.children.get(chosen.id) || [])] : []);
  const edges = { plain: [], bold: [] };
  for (const one of kept)
    for (const parent of one.parents) {
      const to = places.get(one.id);
      const from = places.get(parent);
      if (!from) continue;
      const bold = chosen && (one === chosen || parent === chosen.id);
      const bend = from[0] === to[0] ? across * 0.4 : -(to[0] - from[0]) * 0.4;
      edges[bold ? 'bold' : 'plain'].push(from[0] === to[0]
        ? `M${from[0]} ${from[1]}C${from[0] + bend} ${from[1]} ${to[0] + bend} ${to[1]} ${to[0]} ${to[1]}`
        : `M${from[0]} ${from[1]}C${from[0] - bend} ${from[1]} ${to[0] + bend} ${to[1]} ${to[0]} ${to[1]}`);
    }
  const width = 68 + (numbers.length - 1) * across;
  const height = 46 + tallest * DOWN;
  const drawn = h('svg', { class: 'lineage', width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${plural(kept.length, 'candidate')} in ${plural(numbers.length, 'generation')}`,
    on: { click: (event) => { const id = event.target.getAttribute('data-id'); if (id) go(`lineage/${id}`); } } },
    numbers.map((number, column) => h('text', { x: 34 + column * across, y: 14, 'text-anchor': 'middle' }, number === 0 ? 'gen 0' : String(number))),
    h('path', { class: 'edge', d: edges.plain.join('') }), h('path', { class: 'edge bold', d: edges.bold.join('') }),
    kept.map((one) => {
      const [x, y] = places.get(one.id);
      const survived = run.survivors.has(one.id);
      return h('circle', { class: `node s${styleOf(one.proposed_by)}${survived ? ' full' : ''}${near.has(one.id) ? ' near' : ''}${one === chosen ? ' chosen' : ''}`, cx: x, cy: y, r: one === chosen ? 7 : 5, 'data-id': one.id });
    }),
    kept.length <= 300 && kept.map((one) => {
      const [x, y] = places.get(one.id);
      return h('text', { x: x + 8, y: y + 4, class: 'name', 'data-id': one.id }, one.id);
    }));
  const ordered = [...kept].sort((a, b) => places.get(a.id)[0] - places.get(b.id)[0] || places.get(a.id)[1] - places.get(b.id)[1]);
  const frame = h('div', { class: 'scroll graph', id: 'graph', tabindex: 0, role: 'application', 'aria-label': 'Lineage: arrow keys go from candidate to candidate',
    on: { keydown: (event) => {
      const index = ordered.indexOf(chosen);
      const [x] = chosen && places.has(chosen.id) ? places.get(chosen.id) : [0];
      const beside = (step) => {
        const columns = ordered.filter((one) => Math.sign(places.get(one.id)[0] - x) === step);
        const next = step > 0 ? columns[0] : columns[columns.length - 1];
        return next && ordered.find((one) => places.get(one.id)[0] === places.get(next.id)[0]);
      };
      const to = { ArrowDown: () => ordered[index + 1], ArrowUp: () => ordered[index - 1], ArrowRight: () => beside(1), ArrowLeft: () => beside(-1) }[event.key];
      if (!to) return;
      event.preventDefault();
      const next = to();
      if (next) go(`lineage/${next.id}`);
    } } }, drawn);
  afterwards(() => {
    const at = chosen && places.get(chosen.id);
    if (at) frame.scrollLeft = at[0] - frame.clientWidth / 2;
    if (at && at[1] > frame.scrollTop + frame.clientHeight) frame.scrollTop = at[1] - frame.clientHeight / 2;
  });
  return frame;
}
