// The page of a comparison: what it comes to, who proposed what improved, the profiles, the runs and what made them.

class Comparison {
  constructor(document) {
    Object.assign(this, document);
    const kinds = ['brain', 'search', 'closed form']; // those with curves have colours of their own first
    this.colours = [...this.arms].sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind)).map((one) => one.arm);
    this.styles = new Map(this.colours.map((arm, index) => [arm, index % 9]));
    this.going = this.going || [];
  }

  // A link to the page of a run, by its directory below that of the comparison: on a server's page, or beside this file.
  link(directory, words) {
    const place = directory.split('/').map(encodeURIComponent).join('/');
    const base = given.live && given.live.name.split('/').map(encodeURIComponent).join('/');
    return h('a', { href: base ? `/run/${base}/${place}` : `${place}/report.html` }, words);
  }

  get planned() {
    return this.finished + this.missing.length;
  }
}

function armName(one, arm) {
  return [swatch(one.styles.get(arm) ?? 8), arm.split(/(?<=[+:=,/])/).map((part, index) => [index > 0 && h('wbr'), part])];
}

// A table of the document with its note; of several sparsities the rows of one, where there are any of it.
function tableNamed(one, name, marked, sparsity = '') {
  const { title, header, rows, note } = one.tables[name];
  const at = header.indexOf('sparsity');
  const own = rows.filter((row) => row[at] === sparsity);
  return [table(header, own.length ? rows.filter((row) => row[at] === sparsity || row[0] === 'dense') : rows, { marked, label: title }), note && h('p', { class: 'soft note-below' }, note)];
}

function verdictTab(one, state) {
  const [lead, ...others] = one.sentences;
  const figures = one.tables.brief || { header: [], rows: [] };
  const sparsities = [...new Set(figures.rows.map((row) => row[1]))].filter((each) => each !== '0%');
  state.sparsity = ['', ...sparsities].includes(state.sparsity) ? state.sparsity : sparsities.includes('all') ? 'all' : '';
  const choose = sparsities.length > 1 && h('div', { class: 'controls' }, select('sparsity', 'Sparsity', [...sparsities.map((each) => [each, each === 'all' ? 'mean over all' : each]), ['', 'every row']],
    state.sparsity, (value) => { state.sparsity = value; show(one); }));
  const sections = [['differences', ''], ['generalisation', one.headline], ['costs', one.headline]];
  return [
    one.missing.length > 0 && comingPane(one),
    h('section', {}, h('h2', {}, 'What it comes to'), h('p', { class: 'lead' }, lead), others.length > 0 && h('ul', {}, others.map((sentence) => h('li', {}, sentence)))),
    one.tables.brief && h('section', {}, h('h2', {}, one.tables.brief.title), choose, tableNamed(one, 'brief', one.headline, state.sparsity),
      h('details', { id: 'by-text', open: state.whole, on: { toggle: (event) => { state.whole = event.target.open; } } }, h('summary', {}, 'With KL and intervals by text'), tableNamed(one, 'quality', one.headline, state.sparsity))),
    sections.map(([name, marked]) => one.tables[name] && h('section', {}, h('h2', {}, one.tables[name].title), tableNamed(one, name, marked, state.sparsity))),
    h('section', {}, h('h2', {}, 'Arms'), h('dl', { class: 'facts' }, one.arms.map(({ arm, meaning, kind, runs }) => [h('dt', { class: 'arm' }, armName(one, arm)),
      h('dd', {}, meaning, ' ', h('span', { class: 'soft' }, `(${kind}, ${plural(runs, 'run')})`), one.prompts[arm] && [' ', h('a', { href: `#prompts/${Object.keys(one.prompts).indexOf(arm)}` }, 'its prompts')])]))),
    one.missing.length > 0 && h('section', {}, h('h2', {}, 'Missing runs'), h('ul', {}, one.missing.map((words) => h('li', {}, words)))),
  ];
}

function comingPane(one) {
  const running = one.going.filter((each) => GOING_ON.includes(each.state));
  return h('section', { class: 'pane', 'aria-label': 'progress' },
    h('progress', { max: one.planned, value: one.finished, 'aria-label': 'share of the runs that are finished' }),
    h('p', {}, `${count(one.finished)} of ${plural(one.planned, 'run')} finished; the figures below are of these.`),
    running.length > 0 && goingTable(one, running));
}

function goingTable(one, runs) {
  return table(['going on', 'state', 'best', 'evaluated', 'spent', ''], runs.map((each) => [
    h('a', { href: `/run/${each.id.split('/').map(encodeURIComponent).join('/')}` }, each.id.split('/').slice(-2)[0]), stateBadge(each.state), each.best ? `${each.best} ${fixed(each.fitness)}` : '-',
    count(each.evaluations), typeof each.share === 'number' ? `${Math.round(100 * each.share)}%` : '-', each.left || '']), { caption: 'Runs that are not finished' });
}

function brainTab(one) {
  if (!one.tables.operators) return [h('p', {}, 'No finished run has candidates that were proposed.')];
  return [h('section', {}, h('h2', {}, 'The brain beside chance'),
    one.worths.length ? h('dl', { class: 'verdict' }, one.worths.map(([arm, sentence]) => [h('dt', {}, armName(one, arm)), h('dd', {}, sentence)]))
      : h('p', {}, 'No arm has choices of a brain and of chance to compare.')),
  h('section', {}, h('h2', {}, one.tables.operators.title), tableNamed(one, 'operators', ''))];
}

function profilesTab(one) {
  if (!one.profiles.length) return [h('p', {}, 'No profile is known yet.')];
  return [h('p', { class: 'soft' }, `What the best run of each arm on held-out tokens keeps of every layer, from the first to the last: `, swatch('a'), ` attention, of ${count(one.units.attention)} units; `,
    swatch('b'), ` MLP, of ${count(one.units.mlp)} units. The grey track is the dense layer.`),
  [...new Set(one.profiles.map((each) => each.sparsity))].map((sparsity) => h('section', {}, h('h2', {}, `At ${sparsity} sparsity`),
    h('div', { class: 'gallery' }, one.profiles.filter((each) => each.sparsity === sparsity).map((each) =>
      h('figure', {}, h('figcaption', {}, armName(one, each.arm), h('span', { class: 'soft' }, ` seed ${each.seed}`)), strip({ dense: one.units }, each))))))];
}

function runsTab(one) {
  return [
    one.going.length > 0 && goingTable(one, one.going),
    one.runs.length ? table(['arm', 'sparsity', 'seed', 'fitness', 'holdout', 'perplexity', 'recalibrated', 'tokens', 'evaluations', 'page'], one.runs.map((each) => [
      armName(one, each.arm), each.sparsity, String(each.seed), fixed(each.fitness), fixed(each.holdout), fixed(each.perplexity, 2), fixed(each.recalibrated, 2),
      count(each.tokens), count(each.evaluations), each.directory ? one.link(each.directory, 'report') : '-']), { caption: 'Finished runs; perplexity is a geometric mean over texts' })
      : h('p', {}, 'No run is finished yet.'),
    one.missing.length > 0 && h('section', {}, h('h2', {}, 'Missing runs'), h('ul', {}, one.missing.map((words) => h('li', {}, words)))),
  ];
}

function differencesTab(one, state) {
  const arms = Object.keys(one.prompts);
  if (!arms.length) return [h('p', {}, 'No arm has prompts of its own. Each run keeps the templates that it used; they are in the Prompts of its page.')];
  const at = arms[Number(state.at)] === undefined ? 0 : Number(state.at);
  const lines = one.prompts[arms[at]];
  const kind = (line) => (/^(---|\+\+\+|@@)/.test(line) ? 'old' : line.startsWith('+') ? 'new' : line.startsWith('-') ? 'gone' : '');
  return [h('div', { class: 'controls' }, select('arm', 'Prompts of', arms.map((arm, index) => [String(index), arm]), String(at), (value) => go(`prompts/${value}`))),
    h('p', { class: 'soft' }, 'What differs from the templates that the arm has without prompts of its own: + is only in its own, - only in those.'),
    lines.length ? h('pre', { class: 'prompt', tabindex: 0 }, lines.map((line) => h('span', { class: kind(line) }, `${line}\n`))) : h('p', {}, 'Nothing differs.')];
}

function commandTab(one) {
  const { command, settings, versions, machine, measured_on } = one.reproduce;
  return [h('section', {}, h('h2', {}, 'Command'), h('div', { class: 'command' }, h('pre', {}, command), copyButton('Copy', () => command))),
    h('section', {}, h('h2', {}, 'Where and with what'), table(['', ''], [...Object.entries(versions), ['machine', machine], ['measured on', measured_on]], { label: 'Versions and machine', words: true })),
    h('section', {}, h('h2', {}, 'Settings'), h('p', { class: 'soft' }, 'Shared by all arms.'), h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Settings' },
      h('table', { class: 'settings' }, h('tbody', {}, settings.map(([name, value]) => h('tr', {}, h('th', { scope: 'row' }, `--${name.replaceAll('_', '-')}`), h('td', {}, value)))))))];
}
