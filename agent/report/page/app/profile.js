// What each layer keeps: over the generations, beside another profile, and why.

const COLUMNS = 40; // generations of the heat map at the most

function profileTab(run, state) {
  const found = run.byId.get(state.at || '') || run.best || foundAlone(run);
  if (!found || !run.dense) return [h('p', {}, 'No profile is known yet.')];
  const names = run.candidates.map((one) => [one.id, `${one.id}${one === run.best ? ' (best)' : ''}, ${run.origin(one)}`]);
  const uniform = run.candidates.find((one) => one.proposed_by === 'seed' && one.detail === 'uniform');
  state.other = run.byId.has(state.other || '') ? state.other : (uniform || found).id;
  state.layer = state.layer ?? 0;
  const other = run.byId.get(state.other) || found;
  return [
    names.length > 0 && h('div', { class: 'controls' },
      select('profile-of', 'Profile of', names, found.id, (value) => go(`profile/${value}`)),
      select('beside', 'beside', names, state.other, (value) => { state.other = value; show(run); })),
    h('section', {}, h('h2', {}, `What each layer keeps: ${found.id}${other === found ? '' : ` beside ${other.id}`}`),
      h('p', { class: 'soft' }, swatch('a'), ` attention, of ${run.dense.attention} units; `, swatch('b'), ` MLP, of ${run.dense.mlp} units. The grey track is the dense layer`,
        other === found ? '.' : `, the dark mark ${other.id}.`,
        run.probes.length > 0 && ' A probe is what cutting this place alone by a third costs, in nats a token: the darker, the dearer.',
        run.sensitivities.length > 0 && ' The slope is what one unit fewer would cost to first order, where sensitivities were measured last.', ' Choose a layer to see why it has its widths.'),
      h('div', { class: 'split layered' }, layers(run, found, other, state), h('div', { class: 'beside' }, whyWidth(run, found, state.layer)))),
    heatMap(run),
  ];
}

// The found profile of a run whose candidates are not known.
function foundAlone(run) {
  return run.found && { id: 'found', parents: [], scores: {}, ...run.found };
}

function layers(run, found, other, state) {
  const probe = new Map(run.probes.map((one) => [`${one.part} ${one.layer}`, one]));
  const dearest = Math.max(...run.probes.map((one) => one.kl), 1e-9);
  const slopes = run.sensitivities[run.sensitivities.length - 1];
  const cells = (part, layer) => {
    const one = probe.get(`${part} ${layer}`);
    const slope = slopes && slopes[part][layer] && slopes[part][layer][0];
    return [
      h('td', { class: 'bar' }, bar(found[part][layer], other[part][layer], run.dense[part], part)),
      h('td', { class: 'number' }, String(found[part][layer]), h('span', { class: 'soft' }, other === found ? '' : ` (${signed(found[part][layer] - other[part][layer], 0)})`)),
      run.probes.length > 0 && h('td', { class: 'heat', style: { '--share': one ? Math.sqrt(one.kl / dearest).toFixed(3) : 0 } }, one ? fixed(one.kl) : '-'),
      slopes && h('td', { class: 'number soft' }, signed(slope))];
  };
  const heads = (name) => [h('th', { scope: 'col', class: 'words' }, name), h('th', { scope: 'col' }, 'units'), run.probes.length > 0 && h('th', { scope: 'col' }, 'probe'), slopes && h('th', { scope: 'col' }, 'slope')];
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Units kept in each layer' }, h('table', { class: 'layers' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'layer'), heads('attention'), heads('MLP'))),
    h('tbody', {}, found.mlp.map((_, layer) => h('tr', { class: layer === state.layer ? 'found' : null },
      h('th', { scope: 'row' }, h('button', { type: 'button', class: 'small', id: `layer-${layer}`, 'aria-pressed': String(layer === state.layer),
        on: { click: () => { state.layer = layer; show(run); } } }, String(layer))),
      cells('attention', layer), cells('mlp', layer))))));
}

function bar(units, others, dense, part) {
  return h('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    h('rect', { class: 'track', width: 100, height: 10 }), h('rect', { class: part === 'mlp' ? 'b' : 'a', width: 100 * units / dense, height: 10 }),
    others !== units && h('rect', { class: 'mark', x: Math.min(98, 100 * others / dense - 1), width: 2, height: 10 }));
}

// The decisions that made the widths of one layer: from candidate to parent, wherever the width changed.
function whyWidth(run, found, layer) {
  if (!run.byId.has(found.id)) return null;
  return h('section', { class: 'pane', id: 'why', 'aria-live': 'polite' }, h('h3', {}, `Why layer ${layer} keeps what it keeps`),
    ['attention', 'mlp'].map((part) => {
      const decisions = [];
      const seen = new Set();
      let at = found;
      while (at && !seen.has(at.id)) {
        seen.add(at.id);
        const parents = at.parents.map((name) => run.byId.get(name)).filter(Boolean);
        const apart = (parent) => Math.abs(parent[part][layer] - at[part][layer]);
        const from = parents.reduce((near, parent) => (near && apart(near) <= apart(parent) ? near : parent), null);
        if (!from) decisions.unshift([candidateLink(at.id), ` began with ${at[part][layer]} (${at.proposed_by === 'seed' ? at.detail : run.maker(at)})`]);
        else if (apart(from)) decisions.unshift([candidateLink(at.id), `: ${run.maker(at)} took it from ${from[part][layer]} to ${at[part][layer]}`,
          ` in ${at.operator}${at.detail ? ` (${at.detail})` : ''}; fitness ${fixed(run.known(from))} → ${fixed(run.known(at))}`, at.step > 0 && [', ', stepLink(at.step)]]);
        at = from;
      }
      return h('div', {}, h('strong', {}, `${part === 'mlp' ? 'MLP' : 'Attention'}, ${found[part][layer]} of ${run.dense[part]}`), h('p', { class: 'soft' }, probeWords(run, part, layer)), h('ol', {}, decisions.map((one) => h('li', {}, one))));
    }));
}

// How dear it is to cut the place, among those of all layers.
function probeWords(run, part, layer) {
  const own = run.probes.filter((one) => one.part === part).sort((a, b) => b.kl - a.kl);
  const place = own.findIndex((one) => one.layer === layer);
  if (place < 0) return '';
  return `Cut alone to ${own[place].width}, it costs ${fixed(own[place].kl)} nats a token: number ${place + 1} of ${own.length} layers, the dearest first.`;
}

// Layers by generations: what the best of each generation kept. Generations with the same best share a column.
function heatMap(run) {
  const columns = [];
  for (const one of run.generations) {
    const best = run.byId.get(one.best);
    const last = columns[columns.length - 1];
    if (best && last && last.best === best) last.to = one.number;
    else if (best) columns.push({ best, from: one.number, to: one.number });
  }
  if (!columns.length) return null;
  const step = Math.max(1, Math.ceil(columns.length / COLUMNS));
  const shown = columns.filter((_, index) => index % step === 0 || index === columns.length - 1);
  const part = (name) => h('table', { class: 'map' }, h('caption', {}, name === 'mlp' ? 'MLP' : 'Attention'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'layer'), shown.map((one) => h('th', { scope: 'col' }, candidateLink(one.best.id),
      h('span', { class: 'soft' }, one.from === one.to ? `gen ${one.from}` : `gen ${one.from}-${one.to}`))))),
    h('tbody', {}, shown[0].best[name].map((_, layer) => h('tr', {}, h('th', { scope: 'row' }, String(layer)), shown.map((one, index) => {
      const units = one.best[name][layer];
      const before = index ? shown[index - 1].best[name][layer] : units;
      return h('td', { class: units === before ? 'kept' : 'kept moved', style: { '--share': (units / run.dense[name]).toFixed(3) } }, String(units));
    })))));
  return h('section', {}, h('h2', {}, 'The best of each generation'),
    h('p', { class: 'soft' }, `Units kept, the darker the more; a framed cell changed. ${columns.length === 1 ? 'The best never changed.' : `The best changed ${columns.length === 2 ? 'once' : `${count(columns.length - 1)} times`}.`}`,
      step > 1 && ` One change in ${step} is shown.`),
    h('div', { class: 'scroll maps', tabindex: 0, role: 'region', 'aria-label': 'Heat map of layers and generations' }, part('attention'), part('mlp')));
}
