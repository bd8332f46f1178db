// The prompt templates of the run with where they were used, and what it takes to make the run again.

const CALLS = { initialise: 'prune_model', vary: 'prune_model', survive: 'record_population', latency: 'benchmark_latency' };

function promptsTab(run) {
  if (!run.prompts.length) return [h('p', {}, 'The run keeps no templates.')];
  const asked = run.asked;
  return [h('p', {}, `The exact templates of this run, in Jinja2. The brain was asked ${plural(asked.length, 'time')}; a step shows what a template became.`),
    run.prompts.map((one) => {
      const used = usedIn(run, one.name, asked);
      const variables = [...new Set([...one.text.matchAll(/\{\{\s*([a-z_][\w.]*)|\bin ([a-z_][\w.]*)|\bif (?:not )?([a-z_][\w.]*)/g)].map((match) => match[1] || match[2] || match[3]))];
      return h('section', { class: 'template' }, h('h2', {}, one.name),
        used && h('p', {}, used.length ? ['Used in ', used.slice(0, 12).map((step, index) => [index ? ', ' : '', stepLink(step.number)]), used.length > 12 && ` and ${count(used.length - 12)} more`] : 'Not used so far.'),
        variables.length > 0 && h('p', { class: 'soft' }, 'Reads: ', variables.map((name, index) => [index ? ', ' : '', h('code', {}, name)])),
        h('pre', { class: 'prompt', tabindex: 0 }, one.text),
        h('div', { class: 'row' }, copyButton('Copy', () => one.text)),
        used && used.length > 0 && h('details', {}, h('summary', {}, `What it became in step ${used[used.length - 1].number}`), h('pre', { class: 'prompt' }, used[used.length - 1].think.prompt)));
    })];
}

// The steps in which a template was used, by the calls that came of them; null for a file that is no template.
function usedIn(run, name, asked) {
  const kind = (name.match(/^ask_(\w+)\.j2$/) || [])[1];
  if (name === 'system.j2' || name === 'turn.j2') return asked;
  if (kind === 'plan') return asked.filter((step) => step.think.plan);
  if (!kind || !CALLS[kind]) return null;
  return asked.filter((step) => step.acts.some((act) => act.tool === CALLS[kind]
    && (kind !== 'initialise' || (act.arguments || {}).operator === 'initialise') && (kind !== 'vary' || (act.arguments || {}).operator !== 'initialise')));
}

function reproduceTab(run) {
  const { command, again, versions, environment, settings } = run.reproduce;
  const panels = [...new Set(settings.map((one) => one.panel))];
  const value = (one) => (one === null || one === undefined ? '-' : Array.isArray(one) ? one.join(',') : String(one));
  return [
    h('section', {}, h('h2', {}, 'Command'), command
      ? h('div', { class: 'command' }, h('pre', {}, command), copyButton('Copy', () => command)) : h('p', {}, 'Not known.'), again && h('p', {}, again)),
    h('section', {}, h('h2', {}, 'Where and with what'), table(['', ''], [
      ...Object.entries(environment).filter(([, one]) => one !== null && one !== undefined).map(([name, one]) => [name, String(one)]),
      ...Object.entries(versions).map(([name, one]) => [name, String(one)]), ['run', run.path]], { caption: 'Versions and machine', words: true })),
    h('section', {}, h('h2', {}, 'Settings'), h('p', { class: 'soft' }, 'Bold where it is not the default.'),
      panels.map((panel) => [h('h3', {}, panel), h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': panel }, h('table', { class: 'settings' },
        h('thead', {}, h('tr', {}, ['setting', 'value', 'what it means'].map((name) => h('th', { scope: 'col' }, name)))),
        h('tbody', {}, settings.filter((one) => one.panel === panel).map((one) => h('tr', {}, h('th', { scope: 'row' }, `--${one.name.replaceAll('_', '-')}`),
          h('td', { class: value(one.value) === value(one.default) ? null : 'given' }, value(one.value)), h('td', { class: 'soft' }, one.help || ''))))))])),
  ];
}
