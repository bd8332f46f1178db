// The card of one candidate: what it is, who proposed it and why, what it scored, what became of it.

function card(run, one, { heading = 'h3' } = {}) {
  const step = run.steps.get(one.step);
  const reply = step && step.think && (step.think.replies || []).find((each) => each.thought);
  const change = run.change(one);
  const facts = [
    ['Proposed by', [swatch(styleOf(one.proposed_by)), `${run.maker(one)} (${one.operator})`]],
    ['What it did', one.detail || '-'],
    ['Parents', one.parents.length ? one.parents.map((name, index) => [index ? ', ' : '', candidateLink(name)]) : 'none'],
    ['Change from the better parent', change === undefined ? '-' : [signed(change), ' ',
      change < 0 ? badge('improved', 'good') : badge(change > 0 ? 'worse' : 'the same')]],
    ['Fitness', Object.entries(one.scores).map(([tokens, value]) => `${fixed(value)} on ${count(Number(tokens))} tokens`).join('; ')
      || (one.error ? `failed: ${one.error}` : 'not measured yet')],
    Object.keys(one.texts).length > 1 && ['By text', Object.entries(one.texts).map(([name, value]) => `${name} ${fixed(value)}`).join(', ')],
    one.holdout !== null && one.holdout !== undefined && ['On the holdout', fixed(one.holdout)],
    ['Repair', one.repaired ? `${plural(one.repaired, 'unit')} changed to meet the budget` : 'none was needed'],
    ['Parameters', count(one.params)],
    one.latency.speedup !== undefined && ['Latency', `prefill ${fixed(one.latency.prefill_ms, 1)} ms, decode ${fixed(one.latency.decode_ms, 2)} ms, ${fixed(one.latency.speedup, 2)} times as fast as dense`],
    ['Survived', survivedIn(run, one)],
    ['Made in', [`generation ${one.generation}, `, step ? stepLink(one.step) : one.step ? `step ${one.step}` : 'the beginning']],
    reply && ['Thought', h('q', {}, reply.thought)],
  ].filter(Boolean);
  return h('section', { class: 'card', id: `card-${one.id}`, 'aria-label': `candidate ${one.id}` },
    h('div', { class: 'row' }, h(heading, {}, one.id, run.best === one && [' ', badge(run.overview ? 'found' : 'best so far', 'good')]),
      h('a', { href: `#profile/${one.id}`, class: 'small' }, 'its profile'), h('a', { href: `#lineage/${one.id}`, class: 'small' }, 'its lineage')),
    strip(run, one),
    h('dl', { class: 'facts' }, facts.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)])));
}

function survivedIn(run, one) {
  const numbers = run.generations.filter((each) => each.survivors.includes(one.id)).map((each) => each.number);
  if (!numbers.length) return run.generations.length > one.generation ? 'no' : 'not decided yet';
  return numbers.length === 1 ? `generation ${numbers[0]}` : `generations ${numbers[0]} to ${numbers[numbers.length - 1]}`;
}

function candidateLink(id) {
  return h('a', { href: `#search/${id}` }, id);
}

function stepLink(number) {
  return h('a', { href: `#trace/${number}` }, `step ${number}`);
}

// Two rows of bars, a bar a layer: attention above, MLP below, each as a share of the dense layer.
function strip(run, one) {
  const layers = one.mlp.length;
  const parts = ['attention', 'mlp'];
  const width = 100 / layers;
  return h('svg', { class: 'strip', viewBox: '0 0 100 26', preserveAspectRatio: 'none', role: 'img',
    'aria-label': `attention ${one.attention.join(' ')}; MLP ${one.mlp.join(' ')}` },
    parts.map((part, row) => one[part].map((units, layer) => {
      const tall = 12 * units / run.dense[part];
      return [h('rect', { class: 'track', x: layer * width, y: row * 14, width: width * 0.85, height: 12 }),
        h('rect', { class: row ? 'b' : 'a', x: layer * width, y: row * 14 + 12 - tall, width: width * 0.85, height: tall })];
    })));
}
