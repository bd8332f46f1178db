// The list of runs and comparisons, as the server knows them.

function runsPage(list) {
  const place = (one) => one.id.split('/').map(encodeURIComponent).join('/');
  const row = (one) => [h('a', { href: one.kind === 'comparison' ? `/comparison/${place(one)}` : `/run/${place(one)}` }, one.name),
    stateBadge(one.state), one.arm || '-', one.budget || '-', one.best ? `${one.best} ${fixed(one.fitness)}` : '-',
    one.evaluations === undefined ? '-' : `${count(one.evaluations)}${one.of ? ` of ${count(one.of)}` : ''}`, one.share === null || one.share === undefined ? '-' : `${Math.round(100 * one.share)}%`];
  const header = ['run', 'state', 'arm', 'budget', 'best', 'evaluated', 'spent'];
  const runs = list.runs.filter((one) => one.kind === 'run');
  const comparisons = list.runs.filter((one) => one.kind === 'comparison');
  return [h('h2', {}, plural(runs.length, 'run')), runs.length ? table(header, runs.map(row), { caption: 'Runs, the newest first' }) : h('p', {}, `There is no run in ${list.folder} yet.`),
    comparisons.map((one) => h('section', {}, h('h2', {}, 'Comparison ', h('a', { href: `/comparison/${place(one)}` }, one.name)),
      h('p', {}, `${count(one.finished)} of ${plural(one.planned, 'run')} finished; arms ${one.arms.join(', ')}. `, one.sentence),
      one.runs.length > 0 && table(header, one.runs.map(row), { caption: `Runs of ${one.name}` })))];
}

function stateBadge(state) {
  return badge(state, { finished: 'good', failed: 'bad', interrupted: 'bad', unknown: 'bad', running: 'brain', paused: 'warn', stopping: 'warn' }[state] || '');
}
